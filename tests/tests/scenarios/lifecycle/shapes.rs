//! Servers of every shape: how many workers, how they accept, and which families they take.

use std::io::{self, Write};

use anyhow::{Result, ensure};
use reuseport_daemon::lab::{
    load::{Load, LoadOptions},
    server::{Acceptor, Options},
    world::World,
};
use reuseport_tests::{
    held::instance_status,
    stage::{DEADLINE, PORT, SERVICE, Stage, listening, tag},
};

const MIGRATIONS: u32 = 3;

/// Connections to an instance: enough that each worker's share of them is no accident.
const EACH: u64 = 800;

pub(crate) fn one_worker() -> Result<()> {
    every_acceptor(1)
}

pub(crate) fn eight_workers() -> Result<()> {
    every_acceptor(8)
}

fn every_acceptor(workers: u16) -> Result<()> {
    for acceptor in [Acceptor::Level, Acceptor::Edge, Acceptor::Blocking] {
        for (listen, v4, v6) in [
            ("0.0.0.0:7777", true, false),
            ("[::]:7777,v6only", false, true),
            ("[::]:7777", true, true),
        ] {
            let world = World::loopback()?;
            let mut targets = Vec::new();
            targets.extend(v4.then(|| world.v4(PORT)));
            targets.extend(v6.then(|| world.v6(PORT)));
            let shape = |label: &str| Options {
                workers,
                acceptor,
                ..listening(label, &[listen])
            };
            let (connections, least, most) = migrates(world, targets, listen, shape)?;
            let _ = writeln!(
                io::stderr(),
                "{workers} {acceptor:?} on {listen}: {connections} connections, 0 lost, \
                 a worker's share from {least} to {most} %"
            );
        }
    }
    Ok(())
}

/// Migrates a few times. Returns how many connections there were, and the smallest and the largest
/// share of an instance's connections that a worker of it got, in per cent of an even one.
fn migrates(
    world: World,
    targets: Vec<std::net::SocketAddr>,
    listen: &str,
    shape: impl Fn(&str) -> Options,
) -> Result<(u64, u64, u64)> {
    let stage = Stage::set(world, &[listen.to_owned()])?;
    let mut serving = stage.instance(&shape("v0"))?;
    let load = Load::start(stage.world.client(), LoadOptions::churn(targets, 8))?;
    ensure!(load.advances_by(EACH, DEADLINE), "a load under way");
    let (mut least, mut most) = (u64::MAX, 0);
    let (mut spans, mut accepted) = (Vec::new(), 0);
    for number in 1..=MIGRATIONS {
        let label = format!("v{number}");
        let next = stage.server(&shape(&label))?;
        let mut switched = None;
        let result = stage.migrate_to(&next, &label, || switched = Some(load.mark()))?;
        ensure!(result.left_behind == 0, "{result:?}");
        accepted += std::mem::replace(&mut serving, next).exit()?.accepted;
        ensure!(load.advances_by(EACH, DEADLINE), "a load that goes on");
        let (low, high) = shares(&stage, &label, shape(&label).workers)?;
        (least, most) = (least.min(low), most.max(high));
        spans.push((switched, load.mark(), tag(&label)));
    }
    let ledger = load.stop()?.connections;
    ledger.check_complete()?;
    for (switched, next, label) in spans {
        let switched = switched.expect("reported");
        ensure!(ledger.check_within(switched..next, label)? > 0, "{label}");
    }
    accepted += serving.exit()?.accepted;
    ensure!(
        accepted == ledger.begun(),
        "{accepted} of {}",
        ledger.begun()
    );
    super::check_selected(&stage, ledger.begun())?;
    // Each share is of some hundred connections, spread by a hash.
    ensure!(
        least >= 50 && most <= 200,
        "shares from {least} to {most} %"
    );
    Ok((ledger.begun(), least, most))
}

fn shares(stage: &Stage, label: &str, workers: u16) -> Result<(u64, u64)> {
    let instance = instance_status(stage, SERVICE, label)?.expect("it serves");
    let selected: Vec<u64> = instance.listeners.iter().map(|it| it.selected).collect();
    ensure!(selected.len() == usize::from(workers), "{instance:?}");
    let total: u64 = selected.iter().sum();
    let shares = selected
        .iter()
        .map(|it| it * 100 * u64::from(workers) / total);
    let shares: Vec<u64> = shares.collect();
    let least = shares.iter().min().copied().unwrap_or_default();
    Ok((least, shares.into_iter().max().unwrap_or_default()))
}
