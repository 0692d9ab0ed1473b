//! Services by the thousand.

use std::time::Instant;

use anyhow::Result;
use reuseport_daemon::lab::{fixture::Fixture, world::World};

use super::{millis, time_status};
use crate::{
    bench::{
        many, progress,
        report::{Findings, Goal, Table, Wanted},
        rounds::Effort,
        summary::{Summary, float},
    },
    stage::Stage,
    traces::descriptors,
    usage::resident,
};

const SIZES: [u16; 4] = [1, 250, 500, 1000];
const FEWER: [u16; 4] = [1, 50, 100, 200];

pub(super) fn measure(effort: Effort) -> Result<Findings> {
    let mut table = Table::new(
        "Services, each with an instance of one listener. Adding one is `AddService` and `Register`.",
        &[
            "services",
            "adding one, ms",
            "`status`, ms",
            "of it processor",
            "resident, kB",
            "kB a service",
            "descriptors",
        ],
    );
    let stage = Stage::bare(World::loopback()?)?;
    let pid = stage.daemon().pid();
    let mut servers: Vec<Fixture> = Vec::new();
    let (mut present, mut first) = (0, None);
    let mut each = f64::NAN;
    for size in effort.of(FEWER, SIZES) {
        progress(&format!("scale, {size} services"));
        let mut times = Vec::new();
        for (first, server) in many::servers(&stage, present..size)? {
            for number in first..(first + many::SERVED_TOGETHER).min(size) {
                let begun = Instant::now();
                many::add_service(&stage, number, &server)?;
                times.push(millis(begun.elapsed()));
            }
            servers.push(server);
        }
        present = size;
        let status = time_status(&stage, 5)?;
        let kilobytes = float(resident(pid)?);
        let (fewest, least) = *first.get_or_insert((size, kilobytes));
        each = (kilobytes - least) / f64::from(size - fewest);
        table.row([
            f64::from(size).into(),
            Summary::of(times).into(),
            status.whole.into(),
            status.processor.median.into(),
            kilobytes.into(),
            each.into(),
            float(descriptors(pid)?.len() as u64).into(),
        ]);
    }
    let goal = Goal {
        of: "daemon memory for each service",
        wanted: Wanted::AtMost(40.0),
        found: each,
        unit: "kB",
        floor: "The daemon keeps the active table, which is 8 KiB.".to_owned(),
    };
    Ok((vec![table], vec![goal]))
}
