//! Whoever steers is gone.

use std::os::fd::AsFd;

use anyhow::{Result, ensure};
use reuseport_daemon::{
    domain::Slot,
    lab::{
        load::{Load, LoadOptions},
        server::Stop,
        world::World,
    },
    steering::{GroupMaps, ProgramKind},
};

use super::steered::Steered;
use crate::lab::setup::{DEADLINE, PORT, listeners_of, start, tag, v4_options};

/// What is left of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    /// The sockets hold the program, and the program its maps: pins are for who comes next.
    Program,
    Nothing,
}

/// The steering goes on, and an instance that was moved away from can close.
pub(crate) fn program_stays() -> Result<()> {
    let (from_old, lost) = play(Left::Program)?;
    ensure!(
        from_old == 0,
        "{from_old} connections went to the old instance"
    );
    ensure!(lost == 0, "{lost} lost");
    Ok(())
}

/// With the program gone the kernel shares new connections among all listeners, and the close of the old
/// one costs.
pub(crate) fn program_goes() -> Result<()> {
    let (from_old, lost) = play(Left::Nothing)?;
    ensure!(from_old > 0, "nothing went to the old instance");
    ensure!(lost > 0, "nothing was lost");
    Ok(())
}

/// How many connections the instance got that was moved away from, and how many were lost when it closed.
fn play(left: Left) -> Result<(u64, u64)> {
    let world = World::loopback()?;
    let mut steered = Steered::load(ProgramKind::Select)?;
    let mut old = start(&world, &v4_options("v1"))?;
    let new = start(&world, &v4_options("v2"))?;
    steered.admit(Slot(1), &old)?;
    steered.admit(Slot(2), &new)?;
    steered.switch_to(Slot(2))?;
    drop(steered);
    match left {
        Left::Program => {}
        Left::Nothing => {
            for listener in listeners_of(&old)? {
                GroupMaps::detach(listener.as_fd())?;
            }
        }
    }
    let churn = LoadOptions::churn(vec![world.v4(PORT)], 16);
    let load = Load::start(world.client(), churn)?;
    ensure!(load.advances_by(2000, DEADLINE), "a load");
    old.stop_listening(Stop::Close)?;
    ensure!(load.advances_by(200, DEADLINE), "a load that goes on");
    let ledger = load.stop()?.connections;
    old.exit()?;
    new.exit()?;
    let by_label = ledger.by_label();
    let from_old = by_label.get(&tag("v1")).copied().unwrap_or(0);
    Ok((from_old, ledger.lost()))
}
