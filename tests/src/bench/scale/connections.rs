//! `status` of a service with established connections by the hundred thousand.

use anyhow::{Context, Result, ensure};
use reuseport_daemon::lab::world::World;

use super::{
    crowd::{Crowd, Kind},
    time_status,
};
use crate::{
    bench::{
        progress,
        report::{Findings, Goal, Table, Wanted},
        rounds::Effort,
        summary::float,
    },
    nginx::{self, Nginx},
    stage::{SERVICE, Stage, any_v4, tag},
    usage::resident,
};

const SIZES: [usize; 3] = [1_000, 10_000, 100_000];
const FEWER: [usize; 2] = [1_000, 10_000];

/// Each worker has its part of them, since a process has not that many descriptors everywhere.
const WORKERS: usize = 8;

pub(super) fn measure(effort: Effort) -> Result<Findings> {
    let mut table = Table::new(
        "`status` of a service whose only instance, an nginx of 8 workers, has that many sessions, which it counts.",
        &[
            "sessions",
            "`status`, ms",
            "of it processor",
            "resident, kB",
        ],
    );
    let stage = Stage::set(World::loopback()?, &[any_v4()])?;
    let options = nginx::Options {
        label: tag("v1"),
        listen: vec![any_v4().parse()?],
        workers: WORKERS,
    };
    let nginx = Nginx::start(stage.world.server(), &options)?;
    stage.daemon().register(SERVICE, nginx.pid(), "v1")?;
    let mut crowds = Vec::new();
    let mut present = 0;
    let mut median = f64::NAN;
    for size in effort.of(&FEWER[..], &SIZES[..]) {
        progress(&format!("scale, {size} sessions"));
        let more = size - present;
        crowds.push(Crowd::gather(&stage.world, Kind::Sessions, more)?);
        present = *size;
        let seen = stage.status()?.instances.into_iter().next();
        let seen = seen.context("an instance")?.sessions;
        ensure!(seen == *size as u64, "{seen} instead of {size} sessions");
        let status = time_status(&stage, effort.of(5, 15))?;
        median = status.whole.median;
        table.row([
            float(*size as u64).into(),
            status.whole.into(),
            status.processor.median.into(),
            float(resident(stage.daemon().pid())?).into(),
        ]);
    }
    let goal = Goal {
        of: "`status` at the most sessions",
        wanted: Wanted::AtMost(50.0),
        found: median,
        unit: "ms",
        floor: "The kernel tells sockets only one by one, and whose they are only by the names of \
                the links in `/proc/PID/fd`."
            .to_owned(),
    };
    Ok((vec![table], vec![goal]))
}
