//! What the daemon does while nothing happens.

use std::{thread, time::Duration};

use anyhow::{Context, Result};
use reuseport_daemon::lab::{fixture::Fixture, world::World};

use super::{
    many, progress,
    report::{Findings, Goal, Table, Wanted},
    rounds::Effort,
    summary::float,
};
use crate::{
    stage::Stage,
    usage::{cpu, resident, switches, threads},
    wait::until,
};

const SIZES: [u16; 2] = [1, 1000];
const FEWER: [u16; 2] = [1, 200];

/// A daemon with services, and their servers.
struct Idler {
    services: u16,
    // Before the world that they are in.
    _servers: Vec<Fixture>,
    stage: Stage,
}

pub(super) fn measure(effort: Effort) -> Result<Findings> {
    let mut table = Table::new(
        "Daemons that nobody asks for anything, with an instance in each service.",
        &["services", "wakeups/s", "processor, µs/s", "resident, kB"],
    );
    let idlers = effort.of(FEWER, SIZES).map(Idler::with);
    let idlers: Vec<Idler> = idlers.into_iter().collect::<Result<_>>()?;
    let pids: Vec<u32> = idlers.iter().map(|it| it.stage.daemon().pid()).collect();
    progress("idle: waiting for what ran beside the drivers to end");
    for pid in &pids {
        until("one thread is left", || Ok(threads(*pid)? == 1))?;
    }
    let used = || -> Result<Vec<_>> {
        pids.iter()
            .map(|it| Ok((switches(*it)?, cpu(*it)?)))
            .collect()
    };
    let span = Duration::from_secs(effort.of(2, 20));
    let before = used()?;
    // What is measured is this time itself.
    thread::sleep(span);
    let after = used()?;
    let mut most = 0.0_f64;
    for (idler, (before, after)) in idlers.iter().zip(before.iter().zip(after)) {
        let wakeups = float(after.0 - before.0) / span.as_secs_f64();
        let time = after.1.checked_sub(before.1).context("time goes on")?;
        most = most.max(wakeups);
        table.row([
            f64::from(idler.services).into(),
            wakeups.into(),
            (time.as_secs_f64() * 1e6 / span.as_secs_f64()).into(),
            float(resident(idler.stage.daemon().pid())?).into(),
        ]);
    }
    let goal = Goal {
        of: "wakeups of an idle daemon, at the worst size",
        wanted: Wanted::AtMost(2.0),
        found: most,
        unit: "a second",
        floor: "Nothing is due while nothing happens.".to_owned(),
    };
    Ok((vec![table], vec![goal]))
}

impl Idler {
    fn with(services: u16) -> Result<Self> {
        progress(&format!("idle, {services} services"));
        let stage = Stage::bare(World::loopback()?)?;
        let mut servers = Vec::new();
        for (first, server) in many::servers(&stage, 0..services)? {
            for number in first..(first + many::SERVED_TOGETHER).min(services) {
                many::add_service(&stage, number, &server)?;
            }
            servers.push(server);
        }
        Ok(Self {
            services,
            _servers: servers,
            stage,
        })
    }
}
