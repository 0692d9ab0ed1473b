//! nginx that is ended and started again, without another one beside it, on a link with a round trip
//! of 20 ms.

use std::{
    io::{self, Write},
    ops::RangeInclusive,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use reuseport_daemon::{
    lab::{
        ledger::Ledger,
        load::{Load, LoadOptions, Protocol},
        world::World,
    },
    sys::sock_diag::SockDiag,
};
use reuseport_tests::{
    held::PATIENCE,
    machine::scaled,
    nginx::{Nginx, Options},
    stage::{PORT, SERVICE, Stage, any_v4, far_away, tag},
};
use rustix::process::Signal;

use super::{
    super::nginx::go_on,
    check_waits,
    end::{End, check_accepted, check_closed, check_losses},
    gap, park,
};

const CLIENTS: u32 = 256;
const WORKERS: usize = 2;
const RESTARTS: u32 = 20;

/// As many restarts as this machine is asked for, each with a number.
fn restarts() -> Result<RangeInclusive<u32>> {
    Ok(1..=scaled(RESTARTS)?.max(2))
}

/// QUIT lets it answer what it has accepted: nothing is lost, and nobody sees more than a wait.
pub(crate) fn quit_20() -> Result<()> {
    let stage = park(far_away()?, &[any_v4()])?;
    let mut serving = instance(&stage, 0)?;
    let load = churn(&stage.world)?;
    let (mut ends, mut longest) = (Vec::new(), Duration::ZERO);
    for number in restarts()? {
        let begun = Instant::now();
        serving.signal(Signal::QUIT)?;
        serving.exited()?;
        ends.push(End::since(begun));
        let gap = gap(&stage, CLIENTS)?;
        serving = instance(&stage, number)?;
        longest = longest.max(gap.elapsed());
        go_on(&load)?;
    }
    let ledger = load.stop()?.connections;
    tell("QUIT and start", &ledger);
    check_closed(&ledger, &ends)?;
    check_waits(&ledger, longest)
}

/// The same without the daemon. It loses connections, so the other is able to fail.
pub(crate) fn quit_without() -> Result<()> {
    let world = far_away()?;
    let mut serving = start(&world, 0)?;
    let load = churn(&world)?;
    for number in restarts()? {
        serving.signal(Signal::QUIT)?;
        serving.exited()?;
        serving = start(&world, number)?;
        go_on(&load)?;
    }
    let ledger = load.stop()?.connections;
    tell("without: QUIT and start", &ledger);
    ensure!(ledger.lost() > 0, "nothing was lost");
    Ok(())
}

/// Killed, master and workers, it takes along what they had accepted, and nothing else. They are
/// stopped first, so that it can be counted.
pub(crate) fn killed_20() -> Result<()> {
    let stage = park(far_away()?, &[any_v4()])?;
    let mut serving = instance(&stage, 0)?;
    let load = churn(&stage.world)?;
    let diag = stage.world.server().enter(SockDiag::open)??;
    let (mut ends, mut accepted, mut longest) = (Vec::new(), 0, Duration::ZERO);
    for number in restarts()? {
        serving.stand_still()?;
        accepted += diag.sessions(PORT)?.inodes.len() as u64;
        let begun = Instant::now();
        // Which kills it.
        drop(serving);
        ends.push(End::since(begun));
        let gap = gap(&stage, CLIENTS)?;
        serving = instance(&stage, number)?;
        longest = longest.max(gap.elapsed());
        go_on(&load)?;
    }
    let ledger = load.stop()?.connections;
    tell("kill -9 and start", &ledger);
    check_accepted(&ledger, accepted)?;
    check_losses(&ledger, &ends)?;
    check_waits(&ledger, longest)
}

fn instance(stage: &Stage, number: u32) -> Result<Nginx> {
    let nginx = start(&stage.world, number)?;
    let label = format!("v{number}");
    let registered = stage.daemon().register(SERVICE, nginx.pid(), &label)?;
    ensure!(registered.listeners as usize == WORKERS, "{registered:?}");
    ensure!(registered.state == "serving", "{registered:?}");
    Ok(nginx)
}

fn start(world: &World, number: u32) -> Result<Nginx> {
    let options = Options {
        label: tag(&format!("v{number}")),
        listen: vec![any_v4().parse()?],
        workers: WORKERS,
    };
    Nginx::start(world.server(), &options)
}

fn churn(world: &World) -> Result<Load> {
    let options = LoadOptions {
        protocol: Protocol::Http,
        step_timeout: PATIENCE,
        ..LoadOptions::churn(vec![world.v4(PORT)], CLIENTS)
    };
    let load = Load::start(world.client(), options)?;
    go_on(&load)?;
    Ok(load)
}

fn tell(what: &str, ledger: &Ledger) {
    let (begun, lost, longest) = (ledger.begun(), ledger.lost(), ledger.longest());
    let _ = writeln!(
        io::stderr(),
        "{what}: {begun} connections, {lost} lost, longest {longest:.0?}"
    );
}
