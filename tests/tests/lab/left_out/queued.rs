//! Connections that nobody has accepted yet: their listener closes, or its process dies.

use anyhow::{Result, ensure};
use reuseport_daemon::{
    domain::Slot,
    lab::{
        fixture::Fixture,
        ledger::{Ledger, LossKind},
        load::{Load, LoadOptions},
        world::World,
    },
    steering::ProgramKind,
};
use reuseport_tests::{
    held::{PATIENCE, Stopped},
    steered::Steered,
    wait::until,
};
use rustix::process::Signal;

use super::drain::{Drain, cookie_of, shut_down};
use crate::lab::setup::{DEADLINE, PORT, start, v4_options};

const CLIENTS: u32 = 20;

const OLD: Slot = Slot(1);
const NEW: Slot = Slot(2);

/// What happens to the old server, which does not accept, once the service is switched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// Its listener is shut down.
    ShutDown,
    /// Its listener is shut down once it has accepted what waited.
    WaitAndShutDown,
    /// It is killed.
    Killed,
}

pub(crate) fn accept_queue() -> Result<()> {
    loses_all(&play(ProgramKind::Select, Then::ShutDown)?)?;
    Ok(play(ProgramKind::Select, Then::WaitAndShutDown)?.check_complete()?)
}

/// What is waited for in [`accept_queue`], moved by the kernel.
pub(crate) fn queue_is_moved() -> Result<()> {
    Ok(play(ProgramKind::SelectOrMigrate, Then::ShutDown)?.check_complete()?)
}

pub(crate) fn process_dies() -> Result<()> {
    loses_all(&play(ProgramKind::Select, Then::Killed)?)
}

/// What is lost in [`process_dies`], moved by the kernel.
pub(crate) fn process_dies_moved() -> Result<()> {
    Ok(play(ProgramKind::SelectOrMigrate, Then::Killed)?.check_complete()?)
}

/// The kernel has nobody to move the connections to, and nobody to give new ones to.
pub(crate) fn nobody_is_left() -> Result<()> {
    let world = World::loopback()?;
    let mut steered = Steered::load(ProgramKind::SelectOrMigrate)?;
    let old = start(&world, &v4_options("v1"))?;
    steered.admit(OLD, &old)?;
    steered.switch_to(OLD)?;
    let (load, stopped) = all_wait(&world, &old)?;
    old.signal(Signal::KILL)?;
    drop(stopped);
    drop(old);
    ensure!(
        load.advances_by(u64::from(CLIENTS) * 2, DEADLINE),
        "refusals"
    );
    let ledger = load.stop()?.connections;
    loses_all(&ledger)?;
    ensure!(ledger.answered() == 0 && ledger.lost_by(LossKind::Refused) > 0);
    Ok(())
}

/// Every client has a connection in the old server's queue. Then the service is switched, and the old
/// server lets go.
fn play(kind: ProgramKind, then: Then) -> Result<Ledger> {
    let world = World::loopback()?;
    let drain = Drain::of(&world)?;
    let mut steered = Steered::load(kind)?;
    let old = start(&world, &v4_options("v1"))?;
    let new = start(&world, &v4_options("v2"))?;
    steered.admit(OLD, &old)?;
    steered.admit(NEW, &new)?;
    steered.switch_to(OLD)?;
    let (load, stopped) = all_wait(&world, &old)?;
    steered.switch_to(NEW)?;
    match then {
        Then::ShutDown => {
            drain.grace()?;
            shut_down(&old)?;
            stopped.go_on()?;
            old.exit()?;
        }
        Then::WaitAndShutDown => {
            stopped.go_on()?;
            drain.everything(cookie_of(&old)?)?;
            shut_down(&old)?;
            old.exit()?;
        }
        Then::Killed => {
            drain.grace()?;
            old.signal(Signal::KILL)?;
            drop(stopped);
            drop(old);
        }
    }
    ensure!(
        load.advances_by(u64::from(CLIENTS) * 2, DEADLINE),
        "a load on the new one"
    );
    let ledger = load.stop()?.connections;
    new.exit()?;
    Ok(ledger)
}

/// Clients that wait, each with a connection in the server's queue, and the server that stands.
fn all_wait<'a>(world: &World, server: &'a Fixture) -> Result<(Load, Stopped<'a>)> {
    let drain = Drain::of(world)?;
    let listener = cookie_of(server)?;
    let stopped = Stopped::stop(server)?;
    let options = LoadOptions {
        step_timeout: PATIENCE,
        ..LoadOptions::churn(vec![world.v4(PORT)], CLIENTS)
    };
    let load = Load::start(world.client(), options)?;
    until("every client waits", || {
        Ok(drain.queued(listener)? == CLIENTS)
    })?;
    Ok((load, stopped))
}

/// What waited is lost, every connection of it, and it is reset.
fn loses_all(ledger: &Ledger) -> Result<()> {
    let reset = ledger.lost_by(LossKind::Reset);
    ensure!(reset == u64::from(CLIENTS), "{reset} reset");
    Ok(())
}
