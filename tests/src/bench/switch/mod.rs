//! The switch: how long its system calls take, and what clients notice of a migration.

mod latency;

use std::time::Instant;

use anyhow::Result;
use reuseport_daemon::{api::wire::Migrate, lab::world::World};

use super::{
    many, progress,
    report::{Findings, Goal, Table, Wanted},
    rounds::Effort,
    summary::{Summary, float},
};
use crate::stage::{SERVICE, Stage};

const SIZES: [u16; 4] = [1, 8, 64, 1024];

pub(super) fn measure(effort: Effort) -> Result<Findings> {
    let mut table = Table::new(
        "Migrations to and fro between two standing instances, without clients. The switch is the \
         system calls from the first table's writing to the last word's flip; the whole migration \
         has two RCU grace periods in it.",
        &["listeners", "switch, µs", "slowest, µs", "migration, ms"],
    );
    let mut worst = 0.0_f64;
    for size in SIZES {
        progress(&format!("switch, {size} listeners"));
        let stage = many::stage_of_listeners(World::loopback()?, size)?;
        let _servers = [
            stage.instance(&many::listeners("v1", size))?,
            stage.instance(&many::listeners("v2", size))?,
        ];
        let (mut switches, mut migrations) = (Vec::new(), Vec::new());
        for round in 0..effort.of(5, 40) {
            let begun = Instant::now();
            let switch_us = to_and_fro(&stage, round)?;
            migrations.push(begun.elapsed().as_secs_f64() * 1e3);
            switches.push(float(switch_us));
        }
        let slowest = switches.iter().copied().fold(0.0, f64::max);
        let switches = Summary::of(switches);
        worst = worst.max(switches.median);
        table.row([
            f64::from(size).into(),
            switches.into(),
            slowest.into(),
            Summary::of(migrations).into(),
        ]);
    }
    let switch = Goal {
        of: "system calls of a switch, at the worst size",
        wanted: Wanted::AtMost(50.0),
        found: worst,
        unit: "µs",
        floor: "The table is 8 KiB, which the kernel copies once.".to_owned(),
    };
    let (latencies, latency) = latency::measure(effort)?;
    Ok((vec![table, latencies], vec![switch, latency]))
}

/// Migrates to the instance whose turn it is, and says how long the switch took.
fn to_and_fro(stage: &Stage, round: usize) -> Result<u64> {
    let label = if round.is_multiple_of(2) { "v2" } else { "v1" };
    let migrate = Migrate {
        service: SERVICE.to_owned(),
        to: Some(label.to_owned()),
        ..Migrate::default()
    };
    Ok(stage.migrate(&migrate, || {})?.switch_us)
}
