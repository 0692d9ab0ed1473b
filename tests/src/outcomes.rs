//! Which way the connections went.

use anyhow::{Context, Result, ensure};
use reuseport_daemon::api::wire::Outcomes;

use crate::{machine::leaves_asleep, stage::Stage};

/// Every one of `connections` was steered by the table, once, and by nothing else. Stray packets
/// are left out: how many there are is the network's affair.
///
/// # Errors
///
/// Where the program counted anything else.
pub fn all_selected(outcomes: &Outcomes, connections: u64) -> Result<()> {
    let mut expected = Outcomes {
        stray: outcomes.stray.clone(),
        ..Outcomes::default()
    };
    expected.new.selected = connections;
    ensure!(
        *outcomes == expected,
        "{outcomes:?} instead of {expected:?}"
    );
    Ok(())
}

/// How many connections of their own the stage's daemons have made to wake a server, as they say: none
/// where the kernel does.
///
/// # Errors
///
/// Where they do not say it, or have made some for nobody.
pub fn woken(stage: &Stage) -> Result<u64> {
    let logs = stage.home().logs();
    let said = logs.lines().filter(|it| it.contains("woke acceptors"));
    let mut sum = 0;
    for line in said {
        // The number is the line's last field.
        let mut numbers = line.rsplit(|it: char| !it.is_ascii_digit());
        let number = numbers.find(|it| !it.is_empty());
        sum += number.with_context(|| line.to_owned())?.parse::<u64>()?;
    }
    ensure!(sum == 0 || leaves_asleep()?, "{sum} for nobody");
    Ok(sum)
}
