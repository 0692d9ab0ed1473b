//! One service with thousands of listeners.

use std::time::Instant;

use anyhow::Result;
use reuseport_daemon::{api::wire::Migrate, lab::world::World};

use super::{millis, time_status};
use crate::{
    bench::{
        many, progress,
        report::{Findings, Goal, Table, Wanted},
        rounds::Effort,
        summary::float,
    },
    stage::SERVICE,
    usage::resident,
};

const SIZES: [u16; 3] = [64, 512, 4096];
const FEWER: [u16; 2] = [64, 512];

pub(super) fn measure(effort: Effort) -> Result<Findings> {
    let mut table = Table::new(
        "One service, two instances of so many listeners each: the first one registered, then a \
         migration that registers the second one on its way.",
        &[
            "listeners each",
            "registering, ms",
            "migration, ms",
            "`status`, ms",
            "resident before, kB",
            "after",
            "B a listener",
        ],
    );
    let mut each = f64::NAN;
    for size in effort.of(&FEWER[..], &SIZES[..]) {
        progress(&format!("scale, {size} listeners"));
        let stage = many::stage_of_listeners(World::loopback()?, *size)?;
        let pid = stage.daemon().pid();
        let v1 = stage.server(&many::listeners("v1", *size))?;
        let before = float(resident(pid)?);
        let begun = Instant::now();
        stage.daemon().register(SERVICE, v1.pid(), "v1")?;
        let registering = begun.elapsed();
        let v2 = stage.server(&many::listeners("v2", *size))?;
        let begun = Instant::now();
        let migrate = Migrate {
            service: SERVICE.to_owned(),
            to_pid: Some(v2.pid()),
            label: Some("v2".to_owned()),
            ..Migrate::default()
        };
        stage.migrate(&migrate, || {})?;
        let migration = begun.elapsed();
        let status = time_status(&stage, 5)?;
        let after = float(resident(pid)?);
        each = (after - before) * 1024.0 / (2.0 * f64::from(*size));
        table.row([
            f64::from(*size).into(),
            millis(registering).into(),
            millis(migration).into(),
            status.whole.into(),
            before.into(),
            after.into(),
            each.into(),
        ]);
    }
    let goal = Goal {
        of: "daemon memory for each listener, at the largest size",
        wanted: Wanted::AtMost(200.0),
        found: each,
        unit: "B",
        floor:
            "It is what the allocator keeps of the work's peak: a duplicate, a row of the socket \
                table and settings of each listener at a time."
                .to_owned(),
    };
    Ok((vec![table], vec![goal]))
}
