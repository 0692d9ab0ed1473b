//! Handshakes by the ten thousand in the snapshot of a migration.

use std::{
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use reuseport_daemon::{
    api::wire::Migrate,
    lab::{server::Options, world::World},
};

use super::{
    crowd::{Crowd, Kind},
    millis,
};
use crate::{
    bench::{
        progress,
        report::{Findings, Table},
        rounds::Effort,
        summary::float,
    },
    stage::{DEADLINE, SERVICE, Stage, any_v4, v4},
    usage::{cpu, resident},
};

const SIZES: [usize; 3] = [500, 5_000, 50_000];
const FEWER: [usize; 2] = [500, 5_000];

/// How long the kernel keeps them half-open, in seconds, and how many at a listener.
const DEFERRED: u16 = 60;
const BACKLOG: u16 = u16::MAX;

pub(super) fn measure(effort: Effort) -> Result<Findings> {
    let mut table = Table::new(
        "A migration from a server with that many half-open handshakes (`TCP_DEFER_ACCEPT`): from \
         the switch to the first reading, what waiting for them takes, and how long after their end \
         it ends.",
        &[
            "half-open",
            "to the first reading, ms",
            "waiting, processor %",
            "resident, kB",
            "to the end, ms",
        ],
    );
    for size in effort.of(&FEWER[..], &SIZES[..]) {
        progress(&format!("scale, {size} handshakes"));
        let measured = wait_for(*size, Duration::from_secs(effort.of(1, 3)))?;
        table.row([
            float(*size as u64).into(),
            millis(measured.reading).into(),
            (measured.processor * 100.0).into(),
            measured.kilobytes.into(),
            millis(measured.end).into(),
        ]);
    }
    Ok((vec![table], Vec::new()))
}

struct Measured {
    reading: Duration,
    processor: f64,
    kilobytes: f64,
    end: Duration,
}

fn wait_for(size: usize, span: Duration) -> Result<Measured> {
    let stage = Stage::set(World::loopback()?, &[any_v4()])?;
    let options = |label| Options {
        defer_accept: Some(DEFERRED),
        backlog: BACKLOG,
        ..v4(label)
    };
    let _v1 = stage.instance(&options("v1"))?;
    let _v2 = stage.instance(&options("v2"))?;
    let half_open = Crowd::gather(&stage.world, Kind::Silent, size)?;
    let (readings, read) = mpsc::channel();
    let pid = stage.daemon().pid();
    thread::scope(|scope| {
        let stage = &stage;
        let migration = scope.spawn(move || -> Result<_> {
            let migrate = Migrate {
                service: SERVICE.to_owned(),
                to: Some("v2".to_owned()),
                drain_timeout_ms: Some(60_000),
                ..Migrate::default()
            };
            let mut switched = Instant::now();
            let result = stage.daemon().migrate(&migrate, |progress| {
                if progress.phase == "switched" {
                    switched = Instant::now();
                } else if progress.handshakes.is_some() {
                    // Nobody listens to those after the first.
                    let _ = readings.send(switched.elapsed());
                }
            })?;
            Ok((result, Instant::now()))
        });
        let reading = read.recv_timeout(DEADLINE).context("no reading")?;
        drop(read);
        let (used, begun) = (cpu(pid)?, Instant::now());
        // What is measured is this time itself.
        thread::sleep(span);
        let used = cpu(pid)?.saturating_sub(used);
        let processor = used.as_secs_f64() / begun.elapsed().as_secs_f64();
        let kilobytes = float(resident(pid)?);
        drop(half_open);
        let over = Instant::now();
        let joined = migration.join();
        let (result, ended) = joined.map_err(|_| anyhow::anyhow!("a panic"))??;
        let waited = result.handshakes_waited;
        ensure!(
            waited == size as u64 && result.outcome == "done",
            "{result:?}"
        );
        Ok(Measured {
            reading,
            processor,
            kilobytes,
            end: ended.saturating_duration_since(over),
        })
    })
}
