//! What the daemon costs: nothing while nothing happens, and microseconds at a switch.

use std::{
    io::{self, Write},
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};
use reuseport_daemon::{
    api::wire::{AddService, Changed, Migrate},
    lab::world::World,
};
use reuseport_tests::{
    stage::{SERVICE, Stage, any_v4, v4},
    usage::{resident, switches, threads},
    wait::until,
};

/// With one service, an instance in it and units that may come to it, it sleeps: at most two wakeups a
/// second, and at most 16 MB resident.
pub(crate) fn idle() -> Result<()> {
    const SPAN: Duration = Duration::from_secs(5);
    const WAKEUPS_A_SECOND: u64 = 2;
    const RESIDENT_KB: u64 = 16 * 1024;
    let stage = Stage::bare(World::loopback()?)?;
    let service = AddService {
        name: SERVICE.to_owned(),
        listen: vec![any_v4()],
        instances: Some("game@*".to_owned()),
        ..AddService::default()
    };
    let _: Changed = stage.daemon().call("AddService", &service)?;
    let _v1 = stage.instance(&v4("v1"))?;
    let pid = stage.daemon().pid();
    // What ran beside the driver ends some seconds after its last work.
    until("one thread is left", || Ok(threads(pid)? == 1))?;
    let before = switches(pid)?;
    // What is measured is this time itself.
    thread::sleep(SPAN);
    let wakeups = switches(pid)? - before;
    let resident = resident(pid)?;
    let _ = writeln!(
        io::stderr(),
        "{wakeups} wakeups in {SPAN:?}, {resident} kB resident"
    );
    ensure!(
        wakeups <= WAKEUPS_A_SECOND * SPAN.as_secs(),
        "{wakeups} wakeups"
    );
    ensure!(resident <= RESIDENT_KB, "{resident} kB resident");
    Ok(())
}

/// The switch takes no longer than it takes to write a table and a word.
pub(crate) fn switch() -> Result<()> {
    const MIGRATIONS: usize = 200;
    const MICROSECONDS: u64 = 200;
    let stage = Stage::set(World::loopback()?, &[any_v4()])?;
    let _v1 = stage.instance(&v4("v1"))?;
    let _v2 = stage.instance(&v4("v2"))?;
    let mut times = Vec::new();
    for number in 0..MIGRATIONS {
        let parameters = Migrate {
            service: SERVICE.to_owned(),
            to: Some(if number % 2 == 0 { "v2" } else { "v1" }.to_owned()),
            ..Migrate::default()
        };
        times.push(stage.migrate(&parameters, || {})?.switch_us);
    }
    times.sort_unstable();
    let median = times[MIGRATIONS / 2];
    let p99 = times[MIGRATIONS * 99 / 100 - 1];
    let longest = times[MIGRATIONS - 1];
    let _ = writeln!(
        io::stderr(),
        "{MIGRATIONS} switches: median {median} µs, p99 {p99} µs, longest {longest} µs"
    );
    ensure!(median < MICROSECONDS && p99 < MICROSECONDS, "{times:?}");
    Ok(())
}
