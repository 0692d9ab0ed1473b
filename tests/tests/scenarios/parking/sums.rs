//! What the program counted, against what there was.

use anyhow::{Result, ensure};
use reuseport_daemon::lab::ledger::Ledger;
use reuseport_tests::{outcomes::woken, stage::Stage};

use super::outcomes;

/// Sums: the program ran once for each connection, the daemon's own among them that wake a server where
/// the kernel does not, and the kernel chose for none.
pub(super) fn check_sums(stage: &Stage, ledger: &Ledger) -> Result<()> {
    let new = outcomes(stage)?;
    let runs = new.selected + new.probed + new.parked;
    let (begun, woken) = (ledger.begun(), woken(stage)?);
    ensure!(runs == begun + woken, "{new:?} for {begun} and {woken}");
    ensure!(new.kernel == 0, "{new:?}");
    Ok(())
}
