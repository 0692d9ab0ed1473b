//! How long connections take that are under way during a migration, beside those in as long a time
//! without one.

use std::{ops::Range, thread, time::Instant};

use anyhow::{Result, ensure};
use reuseport_daemon::lab::{
    latency::Latencies,
    ledger::{Ledger, Mark},
    load::{Load, LoadOptions},
    world::World,
};

use super::to_and_fro;
use crate::{
    bench::{
        progress,
        report::{Cell, Goal, Table, Wanted},
        rounds::Effort,
        summary::{Summary, float},
    },
    stage::{DEADLINE, PORT, Stage, any_v4, v4},
};

const CLIENTS: u32 = 8;

/// In how many parts the migrations are looked at, for the spread.
const PARTS: usize = 5;

/// One in so many takes longer: the 99.9th percentile.
const ONE_IN: u64 = 1000;

pub(super) fn measure(effort: Effort) -> Result<(Table, Goal)> {
    progress("switch, latency");
    let stage = Stage::set(World::loopback()?, &[any_v4()])?;
    let _v1 = stage.instance(&v4("v1"))?;
    let _v2 = stage.instance(&v4("v2"))?;
    let churn = LoadOptions::churn(vec![stage.world.v4(PORT)], CLIENTS);
    let load = Load::start(stage.world.client(), churn)?;
    ensure!(load.advances_by(1000, DEADLINE), "a load under way");
    let (mut migrating, mut quiet) = (Vec::new(), Vec::new());
    for round in 0..effort.of(10, 150) {
        let before = load.mark();
        let begun = Instant::now();
        to_and_fro(&stage, round)?;
        let migrated = load.mark();
        // As long again without one.
        thread::sleep(begun.elapsed());
        migrating.push(before..migrated);
        quiet.push(migrated..load.mark());
    }
    let ledger = load.stop()?.connections;
    ledger.check_complete()?;

    let mut table = Table::new(
        "Connections over loopback by 8 clients, from `connect` to the end of the answer, in ms: those \
         under way during a migration, and those in as long a time after it.",
        &["", "connections", "median", "p99", "p99.9", "longest"],
    );
    for (name, spans) in [("migrating", &migrating), ("quiet", &quiet)] {
        let latencies = under_way(&ledger, spans);
        table.row([
            name.into(),
            float(latencies.count()).into(),
            millis(&latencies, 2).into(),
            millis(&latencies, 100).into(),
            millis(&latencies, ONE_IN).into(),
            Cell::from(latencies.longest().as_secs_f64() * 1e3),
        ]);
    }
    let part = migrating.len().div_ceil(PARTS);
    let p999 = |spans: &[Range<Mark>]| -> Vec<f64> {
        let parts = spans.chunks(part);
        parts
            .map(|it| millis(&under_way(&ledger, it), ONE_IN))
            .collect()
    };
    let ratio = Summary::of_ratios(&p999(&migrating), &p999(&quiet));
    let goal = Goal {
        of: "p99.9 of connections during a migration, beside quiet times",
        wanted: Wanted::AtMost(1.1),
        found: ratio.median,
        unit: "",
        floor: "On two processors that clients and servers fill, whatever the daemon computes is \
                time that a connection waits."
            .to_owned(),
    };
    Ok((table, goal))
}

fn under_way(ledger: &Ledger, spans: &[Range<Mark>]) -> Latencies {
    let mut all = Latencies::default();
    for span in spans {
        all.merge(&ledger.under_way(span.clone()));
    }
    all
}

fn millis(latencies: &Latencies, one_in: u64) -> f64 {
    latencies.exceeded_once_in(one_in).as_secs_f64() * 1e3
}
