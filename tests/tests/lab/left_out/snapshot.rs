//! The snapshot of half-open handshakes left out.

use anyhow::{Result, ensure};
use reuseport_daemon::{
    domain::Slot,
    lab::{
        ledger::LossKind,
        load::{Load, LoadOptions, Report},
        server::Stop,
        world::World,
    },
    steering::ProgramKind,
};
use reuseport_tests::steered::Steered;

use super::drain::{Drain, cookie_of};
use crate::lab::setup::{DEADLINE, PORT, far_away, start, tell, v4_options};

/// What is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LeftOut {
    /// What is half-open: after a grace period the old server accepts until there is nothing to accept.
    Snapshot,
    Nothing,
}

pub(crate) fn snapshot() -> Result<()> {
    let without = hand_over(&far_away()?, 64, 20, LeftOut::Snapshot)?;
    tell("20 closings at 20 ms, no snapshot", &without);
    let with = hand_over(&far_away()?, 64, 20, LeftOut::Nothing)?;
    tell("20 closings at 20 ms, all steps", &with);
    loses_by_reset(&without)?;
    Ok(with.connections.check_complete()?)
}

fn loses_by_reset(report: &Report) -> Result<()> {
    let ledger = &report.connections;
    ensure!(ledger.lost() > 0, "nothing was lost");
    ensure!(ledger.lost_by(LossKind::Reset) == ledger.lost());
    Ok(())
}

fn hand_over(world: &World, clients: u32, rounds: u32, left_out: LeftOut) -> Result<Report> {
    let drain = Drain::of(world)?;
    let mut steered = Steered::load(ProgramKind::Select)?;
    let mut serving = start(world, &v4_options("v0"))?;
    let mut slot = Slot(1);
    steered.admit(slot, &serving)?;
    steered.switch_to(slot)?;
    let churn = LoadOptions::churn(vec![world.v4(PORT)], clients);
    let load = Load::start(world.client(), churn)?;
    for round in 1..=rounds {
        let next = start(world, &v4_options(&format!("v{round}")))?;
        slot = Slot(3 - slot.0);
        steered.admit(slot, &next)?;
        let enough = u64::from(clients) * 2;
        ensure!(load.advances_by(enough, DEADLINE), "a load that goes on");
        let old = cookie_of(&serving)?;
        steered.switch_to(slot)?;
        let stop = match left_out {
            LeftOut::Nothing => {
                drain.everything(old)?;
                Stop::Close
            }
            LeftOut::Snapshot => {
                drain.grace()?;
                Stop::DrainClose
            }
        };
        serving.stop_listening(stop)?;
        serving.exit()?;
        serving = next;
    }
    let report = load.stop()?;
    serving.exit()?;
    Ok(report)
}
