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

pub(super) fn measure(effort: Effort) -> Result<Findings> {
    let mut table = Table::new(
        "A daemon that nobody asks for anything, with an instance in each service.",
        &["services", "wakeups/s", "processor, µs/s", "resident, kB"],
    );
    let stage = Stage::bare(World::loopback()?)?;
    let pid = stage.daemon().pid();
    let mut servers: Vec<Fixture> = Vec::new();
    let mut present = 0;
    let mut most = 0.0_f64;
    for size in SIZES.map(|size| effort.of(size.min(200), size)) {
        progress(&format!("idle, {size} services"));
        for (first, server) in many::servers(&stage, present..size)? {
            let last = (first + many::SERVED_TOGETHER).min(size);
            for number in first..last {
                many::add_service(&stage, number, &server)?;
            }
            servers.push(server);
        }
        present = size;
        // What ran beside the driver ends some seconds after its last work.
        until("one thread is left", || Ok(threads(pid)? == 1))?;
        let span = Duration::from_secs(effort.of(2, 10));
        let (wakeups, time) = (switches(pid)?, cpu(pid)?);
        // What is measured is this time itself.
        thread::sleep(span);
        let wakeups = float(switches(pid)? - wakeups) / span.as_secs_f64();
        let time = cpu(pid)?.checked_sub(time).context("time goes on")?;
        most = most.max(wakeups);
        table.row([
            f64::from(size).into(),
            wakeups.into(),
            (time.as_secs_f64() * 1e6 / span.as_secs_f64()).into(),
            float(resident(pid)?).into(),
        ]);
    }
    let goal = Goal {
        of: "wakeups of an idle daemon, at the worst size",
        wanted: Wanted::AtMost(2.0),
        found: most,
        unit: "a second",
        floor: "Nothing is due while nothing happens.",
    };
    Ok((vec![table], vec![goal]))
}
