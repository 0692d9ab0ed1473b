//! Migrations back to back, each to a server that has just started, under as many connections as the
//! machine can make.

use std::{
    env,
    io::{self, Write},
};

use anyhow::{Context, Result, ensure};
use reuseport_daemon::{
    api::wire::{Migrate, OutcomeCounts, Outcomes},
    lab::{
        load::{Load, LoadOptions},
        world::World,
    },
};
use reuseport_tests::{
    holdings::Holdings,
    machine::scaled,
    outcomes::all_selected,
    stage::{DEADLINE, PORT, SERVICE, Stage, any_v4, far_away, tag, v4},
};

/// How many migrations [`ten_thousand`] makes, where it is set.
const MIGRATIONS: &str = "REUSEPORTD_TEST_MIGRATIONS";

/// After how many migrations a daemon has everything that it will ever need.
const SETTLED: u32 = 100;

pub(crate) fn loopback_500() -> Result<()> {
    back_to_back(World::loopback()?, "owner", scaled(500)?, 8)
}

pub(crate) fn link_100() -> Result<()> {
    back_to_back(far_away()?, "owner", scaled(100)?, 256)
}

pub(crate) fn kernel_loopback_100() -> Result<()> {
    back_to_back(World::loopback()?, "kernel", scaled(100)?, 8)
}

pub(crate) fn kernel_link_100() -> Result<()> {
    back_to_back(far_away()?, "kernel", scaled(100)?, 256)
}

/// 10,000 where the time is given to them, see [`MIGRATIONS`]. The daemon holds no more at the end than
/// early on.
pub(crate) fn ten_thousand() -> Result<()> {
    let migrations = match env::var(MIGRATIONS) {
        Ok(count) => count.parse().context(MIGRATIONS)?,
        Err(_) => scaled(2 * SETTLED)?,
    };
    back_to_back(World::loopback()?, "owner", migrations, 8)
}

/// Every connection is answered; those between one migration's switch and the next migration are
/// answered by the instance that was switched to; the program has run exactly once for each; and the
/// daemon holds no more than it did before.
fn back_to_back(world: World, drain: &str, migrations: u32, clients: u32) -> Result<()> {
    let stage = Stage::set(world, &[any_v4()])?;
    let mut serving = stage.instance(&v4("v0"))?;
    let load = Load::start(
        stage.world.client(),
        LoadOptions::churn(vec![stage.world.v4(PORT)], clients),
    )?;
    ensure!(load.advances_by(100, DEADLINE), "a load under way");

    let mut spans = Vec::new();
    let (mut switches, mut handshakes) = (Vec::new(), 0);
    let mut early = Holdings::default();
    for number in 1..=migrations {
        let label = format!("v{number}");
        let next = stage.server(&v4(&label))?;
        let mut since = None;
        let migrate = Migrate {
            service: SERVICE.to_owned(),
            to_pid: Some(next.pid()),
            label: Some(label.clone()),
            drain: Some(drain.to_owned()),
            ..Migrate::default()
        };
        let result = stage.migrate(&migrate, || since = Some(load.mark()))?;
        switches.push(result.switch_us);
        handshakes += result.handshakes_waited;
        ensure!(result.left_behind == 0, "{result:?}");
        // The old server closes its listener now, as a deploy would have it.
        serving.exit()?;
        serving = next;
        // Every client ends what it had begun before the switch, and begins anew.
        let enough = u64::from(clients) * 2;
        ensure!(load.advances_by(enough, DEADLINE), "a load that goes on");
        spans.push((since.expect("reported"), load.mark(), tag(&label)));
        if number <= SETTLED {
            early = early.or_more(Holdings::of(&stage)?);
        }
    }

    let report = load.stop()?;
    switches.sort_unstable();
    let ledger = &report.connections;
    let _ = writeln!(
        io::stderr(),
        "{migrations} migrations, {} connections, {} a second, {} lost, median switch {} µs, \
         slowest {} µs, {handshakes} handshakes waited for; early on {early:?}, in the end {:?}",
        ledger.begun(),
        report.rate(),
        ledger.lost(),
        switches[switches.len() / 2],
        switches[switches.len() - 1],
        Holdings::of(&stage)?,
    );
    ledger.check_complete()?;
    for (since, next, expected) in spans {
        let answered = ledger.check_within(since..next, expected)?;
        ensure!(answered > 0, "nothing went to {expected}");
    }
    // What the kernel moves, it asks the program about once more.
    let outcomes = Outcomes {
        migrating: OutcomeCounts::default(),
        ..stage.status()?.groups[0].outcomes.clone()
    };
    all_selected(&outcomes, ledger.begun())?;
    early.not_exceeded(&stage)
}
