//! What loses connections, loses them here, and the ledger sees it.

use anyhow::ensure;
use reuseport_daemon::lab::{
    ledger::LossKind,
    load::{Load, LoadOptions, Report},
    server::{Acceptor, Options, Stop},
    world::World,
};
use rustix::net::{Shutdown, shutdown};

use super::setup::{DEADLINE, PORT, far_away, listeners_of, start, tell, v4_options};

/// How often a server gives way to the next.
const ROUNDS: u32 = 20;

pub(crate) fn close_loopback() -> anyhow::Result<()> {
    let report = replace(&World::loopback()?, 16, Stop::Close)?;
    tell("20 closings on loopback", &report);
    loses_by_reset(&report)
}

pub(crate) fn close_link() -> anyhow::Result<()> {
    let report = replace(&far_away()?, 64, Stop::Close)?;
    tell("20 closings at 20 ms", &report);
    loses_by_reset(&report)
}

pub(crate) fn drain_close_link() -> anyhow::Result<()> {
    let report = replace(&far_away()?, 64, Stop::DrainClose)?;
    tell("20 drained closings at 20 ms", &report);
    loses_by_reset(&report)
}

/// Another process shuts the listeners down, as a daemon may: no acceptor dies of it, and all say
/// that it happened.
pub(crate) fn shutdown_from_outside() -> anyhow::Result<()> {
    for acceptor in [Acceptor::Level, Acceptor::Edge, Acceptor::Blocking] {
        let world = World::loopback()?;
        let options = Options {
            acceptor,
            workers: 2,
            ..v4_options("v1")
        };
        let old = start(&world, &options)?;
        let new = start(&world, &v4_options("v2"))?;
        let load = Load::start(world.client(), LoadOptions::churn(vec![world.v4(PORT)], 4))?;
        ensure!(load.advances_by(500, DEADLINE), "a load on both");
        let listeners = listeners_of(&old)?;
        ensure!(listeners.len() == 2, "{} listeners", listeners.len());
        for listener in &listeners {
            shutdown(listener, Shutdown::Read)?;
        }
        let mark = load.mark();
        ensure!(load.advances_by(500, DEADLINE), "a load on the new one");
        let report = load.stop()?;
        let since = report.connections.begun_since(mark);
        ensure!(
            since.keys().all(|label| label.as_str() == "v2") && !since.is_empty(),
            "{acceptor:?}: {since:?}"
        );
        let counts = old.exit()?;
        ensure!(counts.listeners_lost == 2, "{acceptor:?}: {counts:?}");
        new.exit()?;
    }
    Ok(())
}

pub(crate) fn nobody_listens() -> anyhow::Result<()> {
    for world in [World::loopback()?, far_away()?] {
        let churn = LoadOptions::churn(vec![world.v4(PORT), world.v6(PORT)], 2);
        let load = Load::start(world.client(), churn)?;
        ensure!(load.advances_by(20, DEADLINE), "refusals");
        let ledger = load.stop()?.connections;
        ensure!(
            ledger.lost_by(LossKind::Refused) == ledger.begun(),
            "{:?}",
            ledger.check_complete()
        );
    }
    Ok(())
}

/// Replaces the server again and again while clients connect: the next one listens beside the old
/// one, which then stops.
fn replace(world: &World, clients: u32, stop: Stop) -> anyhow::Result<Report> {
    let mut serving = start(world, &v4_options("v0"))?;
    let load = Load::start(
        world.client(),
        LoadOptions::churn(vec![world.v4(PORT)], clients),
    )?;
    for round in 1..=ROUNDS {
        let next = start(world, &v4_options(&format!("v{round}")))?;
        ensure!(load.advances_by(200, DEADLINE), "a load on both");
        serving.stop_listening(stop)?;
        serving.exit()?;
        serving = next;
    }
    let report = load.stop()?;
    serving.exit()?;
    Ok(report)
}

fn loses_by_reset(report: &Report) -> anyhow::Result<()> {
    let ledger = &report.connections;
    ensure!(ledger.check_complete().is_err(), "nothing was lost");
    ensure!(
        ledger.lost_by(LossKind::Reset) == ledger.lost(),
        "lost in other ways: {:?}",
        ledger.check_complete()
    );
    ensure!(ledger.begun() == ledger.answered() + ledger.lost());
    Ok(())
}
