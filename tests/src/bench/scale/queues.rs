//! Accept queues of a server that hangs, moved to the next instance.

use std::{io, net::TcpStream, time::Instant};

use anyhow::{Result, ensure};
use reuseport_daemon::{
    api::wire::{Migrate, MigrationResult},
    lab::{server::Options, world::World},
};

use super::millis;
use crate::{
    bench::{
        progress,
        report::{Findings, Goal, Table, Wanted},
        rounds::Effort,
        summary::{Summary, float},
    },
    held::Stopped,
    stage::{PORT, SERVICE, Stage, any_v4, v4},
};

const SIZES: [usize; 3] = [0, 1_000, 10_000];
const BACKLOG: u16 = 16_384;

pub(super) fn measure(effort: Effort) -> Result<Findings> {
    let mut table = Table::new(
        "A server that hangs, with connections in its accept queue: a migration from the call to its \
         result, with the drain strategies that get at them.",
        &["queued", "`kernel`, ms", "`handoff`, ms"],
    );
    let mut most = f64::NAN;
    for size in SIZES {
        progress(&format!("scale, {size} queued"));
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..effort.of(1, 5) {
            for (drain, times) in ["kernel", "handoff"].iter().zip(&mut times) {
                times.push(time_move(size, drain)?);
            }
        }
        let [kernel, handoff] = times.map(Summary::of);
        most = kernel.median;
        table.row([float(size as u64).into(), kernel.into(), handoff.into()]);
    }
    let goal = Goal {
        of: "10,000 queued connections moved by the kernel, whole migration",
        wanted: Wanted::AtMost(100.0),
        found: most,
        unit: "ms",
        floor: "An empty queue takes what the first row says, most of it RCU grace periods."
            .to_owned(),
    };
    Ok((vec![table], vec![goal]))
}

/// How long it takes, in ms.
fn time_move(size: usize, drain: &str) -> Result<f64> {
    let stage = Stage::set(World::loopback()?, &[any_v4()])?;
    let options = |label| Options {
        backlog: BACKLOG,
        ..v4(label)
    };
    let v1 = stage.instance(&options("v1"))?;
    let v2 = Options {
        receive: Some(SERVICE.to_owned()),
        control: Some(stage.home().socket()),
        ..options("v2")
    };
    let _v2 = stage.instance(&v2)?;
    let _hangs = Stopped::stop(&v1)?;
    let target = stage.world.v4(PORT);
    let queued = stage.world.client().enter(|| {
        let connect = |_| TcpStream::connect(target);
        (0..size).map(connect).collect::<io::Result<Vec<_>>>()
    })??;
    let migrate = Migrate {
        service: SERVICE.to_owned(),
        to: Some("v2".to_owned()),
        drain: Some(drain.to_owned()),
        ..Migrate::default()
    };
    let begun = Instant::now();
    let result: MigrationResult = stage.migrate(&migrate, || {})?;
    let elapsed = begun.elapsed();
    let moved = result.moved_by_kernel + result.handed_off;
    ensure!(moved == queued.len() as u64, "{moved} moved: {result:?}");
    Ok(millis(elapsed))
}
