//! Which way the connections went.

use anyhow::{Result, ensure};
use reuseport_daemon::api::wire::Outcomes;

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
