//! A queue that overflows: the clients' patience decides, and the kernel counts.

use std::time::Duration;

use anyhow::{Result, ensure};
use reuseport_daemon::{
    lab::{
        ledger::LossKind,
        load::{Load, LoadOptions},
        server::Options,
        world::World,
    },
    sys::netstat::TcpCounters,
};
use reuseport_tests::{
    held::{PATIENCE, Stopped},
    wait::until,
};

use crate::lab::setup::{DEADLINE, PORT, start, v4_options};

/// More than the queue takes.
const CLIENTS: u32 = 16;

const BACKLOG: u16 = 4;

/// Clients that try again lose nothing, and `ListenOverflows` says that they had to.
pub(crate) fn patient_clients() -> Result<()> {
    let (world, options) = (World::loopback()?, small_queue());
    let server = start(&world, &options)?;
    let stopped = Stopped::stop(&server)?;
    let load = clients(&world, PATIENCE)?;
    until("the queue overflows", || Ok(overflows(&world)? > 0))?;
    stopped.go_on()?;
    let enough = u64::from(CLIENTS);
    ensure!(load.advances_by(enough, DEADLINE), "a load that goes on");
    load.stop()?.connections.check_complete()?;
    server.exit()?;
    Ok(())
}

/// Those that do not are lost, and the kernel has counted at least one packet of each that never came
/// into the queue.
pub(crate) fn impatient_clients() -> Result<()> {
    let (world, options) = (World::loopback()?, small_queue());
    let server = start(&world, &options)?;
    let stopped = Stopped::stop(&server)?;
    let load = clients(&world, Duration::from_millis(200))?;
    until("clients give up", || {
        Ok(load.progress().lost >= u64::from(CLIENTS))
    })?;
    let ledger = load.stop()?.connections;
    ensure!(ledger.lost() == ledger.lost_by(LossKind::TimedOut));
    // One more fits than the backlog says.
    let turned_away = ledger.lost() - u64::from(BACKLOG) - 1;
    let counted = overflows(&world)?;
    ensure!(
        counted >= turned_away,
        "{turned_away} turned away, {counted} counted"
    );
    stopped.go_on()?;
    server.exit()?;
    Ok(())
}

fn small_queue() -> Options {
    Options {
        backlog: BACKLOG,
        ..v4_options("v1")
    }
}

fn clients(world: &World, patience: Duration) -> Result<Load> {
    let options = LoadOptions {
        step_timeout: patience,
        ..LoadOptions::churn(vec![world.v4(PORT)], CLIENTS)
    };
    Ok(Load::start(world.client(), options)?)
}

fn overflows(world: &World) -> Result<u64> {
    Ok(world.server().enter(TcpCounters::read)??.listen_overflows)
}
