//! What the daemon costs: nothing while nothing happens, and microseconds at a switch.

use std::{
    fs,
    io::{self, Write},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use reuseport_daemon::{
    api::wire::{AddService, Changed, Migrate},
    lab::world::World,
};
use reuseport_tests::{
    stage::{SERVICE, Stage, any_v4, v4},
    wait::until,
};

/// With one service, an instance in it and units that may come to it, it sleeps: at most two wakeups a second, and at most
/// 16 MB resident.
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
    until("one thread is left", || Ok(threads(pid)?.len() == 1))?;
    let before = switches(pid)?;
    // What is measured is this time itself.
    thread::sleep(SPAN);
    let wakeups = switches(pid)? - before;
    let resident = number(&fs::read_to_string(format!("/proc/{pid}/status"))?, "VmRSS")?;
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

/// How often the threads of a process have been given a processor and left it again.
fn switches(pid: u32) -> Result<u64> {
    let mut sum = 0;
    for status in threads(pid)? {
        sum += number(&status, "voluntary_ctxt_switches")?;
        sum += number(&status, "nonvoluntary_ctxt_switches")?;
    }
    Ok(sum)
}

/// The status of every thread.
fn threads(pid: u32) -> Result<Vec<String>> {
    let mut statuses = Vec::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        // One that has ended meanwhile is none.
        statuses.extend(fs::read_to_string(thread?.path().join("status")).ok());
    }
    Ok(statuses)
}

/// A number of a `status` file, which may be followed by its unit.
fn number(status: &str, name: &str) -> Result<u64> {
    let mut lines = status.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = lines
        .find(|(found, _)| *found == name)
        .with_context(|| format!("no {name}"))?;
    let number = value.split_whitespace().next().context("a number")?;
    Ok(number.parse()?)
}
