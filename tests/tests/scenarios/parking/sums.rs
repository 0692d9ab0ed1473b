//! What the program counted, against what there was.

use anyhow::{Context, Result, ensure};
use reuseport_daemon::lab::ledger::Ledger;
use reuseport_tests::{machine::leaves_asleep, stage::Stage};

use super::outcomes;

/// Sums: the program ran once for each connection, the daemon's own among them that wake a server where
/// the kernel does not, and the kernel chose for none.
pub(super) fn check_sums(stage: &Stage, ledger: &Ledger) -> Result<()> {
    let new = outcomes(stage)?;
    let runs = new.selected + new.probed + new.parked;
    let (begun, woken) = (ledger.begun(), woken(stage)?);
    ensure!(runs == begun + woken, "{new:?} for {begun} and {woken}");
    ensure!(woken == 0 || leaves_asleep()?, "{woken} for nobody");
    ensure!(new.kernel == 0, "{new:?}");
    Ok(())
}

/// How many connections of their own the daemons have made to wake a server, as they say.
fn woken(stage: &Stage) -> Result<u64> {
    let logs = stage.home().logs();
    let said = logs.lines().filter(|it| it.contains("woke acceptors"));
    let mut sum = 0;
    for line in said {
        // The number is the line's last field.
        let mut numbers = line.rsplit(|it: char| !it.is_ascii_digit());
        let number = numbers.find(|it| !it.is_empty());
        sum += number.with_context(|| line.to_owned())?.parse::<u64>()?;
    }
    Ok(sum)
}
