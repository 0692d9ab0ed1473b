//! Nothing left: descriptors, memory, places for clients, room on the bpffs. Others go on working, what
//! cannot be done is refused with its reason, and nothing leaks. The denial of every single call is
//! beside the kills at every effect, in `killed/denied.rs`.

pub(crate) mod bpffs;
pub(crate) mod clients;
pub(crate) mod descriptors;

use std::time::Duration;

use anyhow::{Result, ensure};
use reuseport_daemon::lab::load::{Load, LoadOptions};
use reuseport_tests::stage::{DEADLINE, PORT, Stage};

/// Clients of the service, who shall notice nothing.
fn gentle_load(stage: &Stage) -> Result<Load> {
    let options = LoadOptions {
        pause: Duration::from_millis(5),
        ..LoadOptions::churn(vec![stage.world.v4(PORT)], 2)
    };
    let load = Load::start(stage.world.client(), options)?;
    ensure!(load.advances_by(20, DEADLINE), "a load under way");
    Ok(load)
}

/// They have noticed nothing.
fn none_lost(load: Load) -> Result<()> {
    ensure!(load.advances_by(20, DEADLINE), "a load that goes on");
    Ok(load.stop()?.connections.check_complete()?)
}
