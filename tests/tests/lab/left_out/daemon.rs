//! Whoever steers is gone.

use std::os::fd::AsFd;

use anyhow::{Result, ensure};
use reuseport_daemon::{
    domain::Slot,
    lab::{
        fixture::Fixture,
        ledger::LossKind,
        load::{Load, LoadOptions},
        world::World,
    },
    steering::{GroupMaps, ProgramKind},
};
use reuseport_tests::{
    held::{PATIENCE, Stopped},
    steered::Steered,
    wait::until,
};
use rustix::process::Signal;

use super::drain::{Drain, cookie_of};
use crate::lab::setup::{DEADLINE, PORT, listeners_of, start, v4_options};

const CLIENTS: u32 = 16;

/// What is left of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    /// The sockets hold the program, and the program its maps: pins are for who comes next.
    Program,
    Nothing,
}

/// The steering goes on, and the old instance has nothing to lose.
pub(crate) fn program_stays() -> Result<()> {
    let stage = Stage::set(Left::Program)?;
    let standing = Stopped::stop(&stage.old)?;
    let load = stage.clients()?;
    ensure!(load.advances_by(2000, DEADLINE), "a load");
    ensure!(stage.queued()? == 0, "connections for the old instance");
    stage.old.signal(Signal::KILL)?;
    drop(standing);
    ensure!(load.advances_by(200, DEADLINE), "a load that goes on");
    Ok(load.stop()?.connections.check_complete()?)
}

/// With the program gone the kernel shares new connections among all listeners, and those that the old
/// one got end with it.
pub(crate) fn program_goes() -> Result<()> {
    let stage = Stage::set(Left::Nothing)?;
    let standing = Stopped::stop(&stage.old)?;
    let load = stage.clients()?;
    // Sooner or later every one of them is given to the one that does not answer.
    let all = || Ok(stage.queued()? == CLIENTS);
    until("every client waits for the old instance", all)?;
    stage.old.signal(Signal::KILL)?;
    drop(standing);
    ensure!(load.advances_by(200, DEADLINE), "a load that goes on");
    let ledger = load.stop()?.connections;
    let reset = ledger.lost_by(LossKind::Reset);
    ensure!(reset == u64::from(CLIENTS), "{reset} reset");
    Ok(())
}

/// Two instances, the newer of which has been switched to, and nobody who steers any more.
struct Stage {
    world: World,
    drain: Drain,
    old: Fixture,
    _new: Fixture,
}

impl Stage {
    fn set(left: Left) -> Result<Self> {
        let world = World::loopback()?;
        let mut steered = Steered::load(ProgramKind::Select)?;
        let old = start(&world, &v4_options("v1"))?;
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
        Ok(Self {
            drain: Drain::of(&world)?,
            world,
            old,
            _new: new,
        })
    }

    fn clients(&self) -> Result<Load> {
        let options = LoadOptions {
            step_timeout: PATIENCE,
            ..LoadOptions::churn(vec![self.world.v4(PORT)], CLIENTS)
        };
        Ok(Load::start(self.world.client(), options)?)
    }

    fn queued(&self) -> Result<u32> {
        self.drain.queued(cookie_of(&self.old)?)
    }
}
