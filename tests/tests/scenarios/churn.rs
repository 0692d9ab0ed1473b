//! Migrations back to back, each to a server that has just started, under as many connections as the
//! machine can make.

use std::io::{self, Write};

use anyhow::{Result, ensure};
use reuseport_daemon::lab::{
    load::{Load, LoadOptions},
    world::World,
};
use reuseport_tests::{
    machine::scaled,
    outcomes::all_selected,
    stage::{DEADLINE, PORT, Stage, any_v4, far_away, tag, v4},
};

pub(crate) fn loopback_500() -> Result<()> {
    back_to_back(World::loopback()?, scaled(500)?, 8)
}

pub(crate) fn link_100() -> Result<()> {
    back_to_back(far_away()?, scaled(100)?, 256)
}

/// Every connection is answered; those between one migration's switch and the next migration are
/// answered by the instance that was switched to; and the program has run exactly once for each.
fn back_to_back(world: World, migrations: u32, clients: u32) -> Result<()> {
    let stage = Stage::set(world, &[any_v4()])?;
    let mut serving = stage.instance(&v4("v0"))?;
    let load = Load::start(
        stage.world.client(),
        LoadOptions::churn(vec![stage.world.v4(PORT)], clients),
    )?;
    ensure!(load.advances_by(100, DEADLINE), "a load under way");

    let mut spans = Vec::new();
    let (mut switches, mut handshakes) = (Vec::new(), 0);
    for number in 1..=migrations {
        let label = format!("v{number}");
        let next = stage.server(&v4(&label))?;
        let mut since = None;
        let result = stage.migrate_to(&next, &label, || since = Some(load.mark()))?;
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
    }

    let report = load.stop()?;
    switches.sort_unstable();
    let ledger = &report.connections;
    let _ = writeln!(
        io::stderr(),
        "{migrations} migrations, {} connections, {} a second, {} lost, median switch {} µs, \
         slowest {} µs, {handshakes} handshakes waited for",
        ledger.begun(),
        report.rate(),
        ledger.lost(),
        switches[switches.len() / 2],
        switches[switches.len() - 1],
    );
    ledger.check_complete()?;
    for (since, next, expected) in spans {
        let answered = ledger.check_within(since..next, expected)?;
        ensure!(answered > 0, "nothing went to {expected}");
    }
    all_selected(&stage.status()?.groups[0].outcomes, ledger.begun())
}
