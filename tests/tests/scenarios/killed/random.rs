//! The daemon killed at moments that nobody chose.

use std::{
    io::{self, Write},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use reuseport_daemon::lab::{
    fixture::Fixture,
    load::{Load, LoadOptions},
    world::World,
};
use reuseport_tests::{
    ctl::{Ctl, Ran},
    machine::scaled,
    stage::{DEADLINE, PORT, SERVICE, Stage, any_v4, tag, v4},
    wait::until,
};

const MIGRATIONS: u32 = 200;

/// One in two migrations has its daemon killed.
const KILL_EVERY: u32 = 2;

/// A hundred daemons are killed during two hundred migrations. Whoever asked for one that broke off
/// asks again, and in the end every connection has been answered, by whoever served then.
pub(crate) fn at_random() -> Result<()> {
    let mut stage = Stage::set(World::loopback()?, &[any_v4()])?;
    let mut serving = stage.instance(&v4("v0"))?;
    let load = Load::start(
        stage.world.client(),
        LoadOptions::churn(vec![stage.world.v4(PORT)], 8),
    )?;
    ensure!(load.advances_by(100, DEADLINE), "a load under way");
    let (mut broken_off, mut spans) = (0, Vec::new());
    let mut usual = Duration::from_millis(50);
    let migrations = scaled(MIGRATIONS)?;
    for number in 1..=migrations {
        let label = format!("v{number}");
        let next = stage.server(&v4(&label))?;
        if number % KILL_EVERY == 0 {
            let moment = usual.mul_f64(spread(number / KILL_EVERY));
            broken_off += u32::from(kill_during(&mut stage, &next, &label, moment)?);
            // The new daemon takes up what the old one had begun, and must not be disturbed there.
            ask_again(&stage, &next, &label)?;
        } else {
            let begun = Instant::now();
            ask_again(&stage, &next, &label)?;
            usual = begun.elapsed();
        }
        let switched = load.mark();
        serving.exit()?;
        serving = next;
        ensure!(load.advances_by(32, DEADLINE), "a load that goes on");
        spans.push((switched, load.mark(), tag(&label)));
    }
    let report = load.stop()?;
    let ledger = &report.connections;
    let _ = writeln!(
        io::stderr(),
        "{migrations} migrations, {broken_off} of them broken off, {} connections, {} lost",
        ledger.begun(),
        ledger.lost(),
    );
    ledger.check_complete()?;
    for (switched, next, expected) in spans {
        ensure!(ledger.check_within(switched..next, expected)? > 0);
    }
    // Else the kills came at the wrong time, and nothing is shown.
    ensure!(broken_off >= migrations / KILL_EVERY / 4, "{broken_off}");
    Ok(())
}

/// Numbers from 0 to 1 of which any few in a row lie evenly.
fn spread(number: u32) -> f64 {
    const GOLDEN: f64 = 0.618_033_988_749_895;
    (f64::from(number) * GOLDEN).fract()
}

/// Asks for a migration and kills the daemon a moment later. Whether the caller was left without an
/// answer.
fn kill_during(stage: &mut Stage, next: &Fixture, label: &str, moment: Duration) -> Result<bool> {
    let line = migrate(next, label);
    let asked = Ctl::of(stage.home())?.start(stage, &line)?;
    thread::sleep(moment);
    stage.replace_killed_daemon()?;
    let code = asked.finish(DEADLINE)?.status.code();
    match code.context("it was killed")? {
        0 => Ok(false),
        1 | 6 => Ok(true),
        code => anyhow::bail!("{line}: {code}"),
    }
}

/// Asks until the service has moved, which it may have done already.
fn ask_again(stage: &Stage, next: &Fixture, label: &str) -> Result<()> {
    let ctl = Ctl::of(stage.home())?;
    let line = format!("--json {}", migrate(next, label));
    until("the service has moved", || {
        let Ran { code, out, err } = ctl.run(&line)?;
        match code {
            0 => Ok(true),
            // One that an earlier daemon began is being finished.
            3 if out.contains("migration-under-way") => Ok(false),
            _ => anyhow::bail!("{line}: {code}: {out}{err}"),
        }
    })
}

fn migrate(next: &Fixture, label: &str) -> String {
    format!("migrate {SERVICE} --to-pid {} --label {label}", next.pid())
}
