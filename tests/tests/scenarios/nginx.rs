//! nginx masters that hand over to each other, on a link with a round trip of 20 ms and under
//! connections over HTTP that never stop.

use std::{
    collections::BTreeSet,
    io::{self, Write},
    ops::Range,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use reuseport_daemon::{
    api::wire::{InstanceStatus, Migrate, MigrationResult, Outcomes},
    lab::{
        ledger::Mark,
        load::{Load, LoadOptions, Protocol, Report},
        wire::Tag,
        world::World,
    },
};
use reuseport_tests::{
    nginx::{Nginx, Options},
    stage::{DEADLINE, PORT, SERVICE, Stage, any_v4, far_away, tag},
};
use rustix::process::Signal;

const CLIENTS: u32 = 256;
const WORKERS: usize = 2;
const HANDOVERS: u32 = 20;
const FEWER_HANDOVERS: u32 = 5;
const RELOADS: u32 = 10;
const SESSIONS: u32 = 50;

pub(crate) fn blue_green_20() -> Result<()> {
    blue_green("blue/green", &[any_v4()], Reach::V4, HANDOVERS)
}

pub(crate) fn blue_green_v6only() -> Result<()> {
    let listen = [format!("[::]:{PORT},v6only")];
    blue_green("IPv6", &listen, Reach::V6, FEWER_HANDOVERS)
}

pub(crate) fn blue_green_dual_stack() -> Result<()> {
    let listen = [format!("[::]:{PORT}")];
    blue_green("dual stack", &listen, Reach::Both, FEWER_HANDOVERS)
}

pub(crate) fn blue_green_two_addresses() -> Result<()> {
    let listen = [any_v4(), format!("[::]:{PORT},v6only")];
    blue_green("two addresses", &listen, Reach::Both, FEWER_HANDOVERS)
}

/// The same handovers without the daemon. They lose connections, so the others are able to fail.
pub(crate) fn blue_green_without() -> Result<()> {
    let world = far_away()?;
    let listen = [any_v4()];
    let mut serving = start(&world, "v0", &listen)?;
    let load = churn(&world, Reach::V4)?;
    for number in 1..=HANDOVERS {
        let next = start(&world, &format!("v{number}"), &listen)?;
        serving.signal(Signal::QUIT)?;
        serving.exited()?;
        serving = next;
        go_on(&load)?;
    }
    let report = load.stop()?;
    tell(&format!("without: {HANDOVERS} handovers"), &report, "");
    ensure!(report.connections.lost() > 0, "nothing was lost");
    Ok(())
}

/// Every connection is answered; those between one switch and the next migration are answered by
/// the new master; the old one ends by itself; the program has run exactly once for each.
fn blue_green(what: &str, listen: &[String], reach: Reach, handovers: u32) -> Result<()> {
    let stage = Stage::set(far_away()?, listen)?;
    let mut serving = instance(&stage, "v0", listen)?;
    let load = churn(&stage.world, reach)?;
    let mut spans = Vec::new();
    let (mut slowest_drain, mut handshakes) = (0, 0);
    for number in 1..=handovers {
        let label = format!("v{number}");
        let next = start(&stage.world, &label, listen)?;
        let (switched, result) = migrate(&stage, &load, &next, &label, Some("signal:QUIT"))?;
        slowest_drain = slowest_drain.max(result.drain_ms);
        handshakes += result.handshakes_waited;
        serving.exited()?;
        serving = next;
        go_on(&load)?;
        spans.push((switched..load.mark(), tag(&label)));
    }
    let report = load.stop()?;
    tell(
        &format!("{what}: {handovers} handovers"),
        &report,
        &format!(", {handshakes} handshakes waited for, slowest drain {slowest_drain} ms"),
    );
    check(&stage, &report, &spans)
}

/// A reload replaces the workers and keeps the listeners, which the workers inherit: the daemon has
/// nothing to do, and nothing goes astray.
pub(crate) fn reload() -> Result<()> {
    let listen = [any_v4()];
    let stage = Stage::set(far_away()?, &listen)?;
    let mut nginx = instance(&stage, "v0", &listen)?;
    let cookies = cookies(&stage, "v0")?;
    let load = churn(&stage.world, Reach::V4)?;
    for _ in 0..RELOADS {
        nginx.reload(WORKERS)?;
        go_on(&load)?;
    }
    let report = load.stop()?;
    tell(&format!("reload: {RELOADS} reloads"), &report, "");
    let after = self::cookies(&stage, "v0")?;
    ensure!(after == cookies, "{after:?} instead of {cookies:?}");
    check(&stage, &report, &[])
}

/// The old masters stay, and so do their sessions: each is answered by the master that accepted it
/// as long as it is held, while the service goes twice elsewhere. Then the first master ends.
pub(crate) fn keep_sessions() -> Result<()> {
    let listen = [any_v4()];
    let stage = Stage::set(far_away()?, &listen)?;
    let first = instance(&stage, "v0", &listen)?;
    let sessions = Load::start(
        stage.world.client(),
        LoadOptions {
            protocol: Protocol::Http,
            sessions: SESSIONS,
            ..LoadOptions::churn(Reach::V4.targets(&stage.world), 0)
        },
    )?;
    let every_one = u64::from(SESSIONS);
    ensure!(sessions.advances_by(every_one, DEADLINE), "open sessions");
    let load = churn(&stage.world, Reach::V4)?;
    let mut later = Vec::new();
    let mut spans = Vec::new();
    for label in ["v1", "v2"] {
        let next = start(&stage.world, label, &listen)?;
        let (switched, _) = migrate(&stage, &load, &next, label, None)?;
        later.push(next);
        go_on(&load)?;
        ensure!(sessions.advances_by(2 * every_one, DEADLINE), "sessions");
        spans.push((switched..load.mark(), tag(label)));
    }
    let held = status_of(&stage, "v0")?.sessions;
    ensure!(held == every_one, "the status tells of {held} sessions");
    let spoken = sessions.stop()?.sessions;
    first.signal(Signal::QUIT)?;
    first.exited()?;
    go_on(&load)?;
    let report = load.stop()?;
    tell(
        "keep: 2 handovers",
        &report,
        &format!(
            "; {SESSIONS} sessions, {} requests, {} lost",
            spoken.begun(),
            spoken.lost()
        ),
    );
    spoken.check_complete()?;
    let speakers = spoken.by_label();
    ensure!(speakers.keys().eq([&tag("v0")]), "{speakers:?}");
    check(&stage, &report, &spans)
}

/// Nothing lost; each span answered by its label alone; and the program chose a listener by its
/// table for every connection.
fn check(stage: &Stage, report: &Report, spans: &[(Range<Mark>, Tag)]) -> Result<()> {
    let ledger = &report.connections;
    ledger.check_complete()?;
    for (span, expected) in spans {
        let answered = ledger.check_within(span.clone(), *expected)?;
        ensure!(answered > 0, "nothing went to {expected}");
    }
    let mut outcomes = Vec::new();
    for group in stage.status()?.groups {
        let mut all_selected = Outcomes::default();
        all_selected.new.selected = group.outcomes.new.selected;
        ensure!(group.outcomes == all_selected, "{:?}", group.outcomes);
        ensure!(all_selected.new.selected > 0, "nobody at {}", group.listen);
        outcomes.push(all_selected.new.selected);
    }
    let (runs, begun) = (outcomes.iter().sum::<u64>(), ledger.begun());
    ensure!(runs == begun, "{runs} runs for {begun} connections");
    Ok(())
}

/// The addresses at which clients try a service.
#[derive(Clone, Copy)]
enum Reach {
    V4,
    V6,
    Both,
}

impl Reach {
    fn targets(self, world: &World) -> Vec<std::net::SocketAddr> {
        match self {
            Self::V4 => vec![world.v4(PORT)],
            Self::V6 => vec![world.v6(PORT)],
            Self::Both => vec![world.v4(PORT), world.v6(PORT)],
        }
    }
}

fn churn(world: &World, reach: Reach) -> Result<Load> {
    let options = LoadOptions {
        protocol: Protocol::Http,
        ..LoadOptions::churn(reach.targets(world), CLIENTS)
    };
    let load = Load::start(world.client(), options)?;
    go_on(&load)?;
    Ok(load)
}

/// Every client ends what it had begun, and begins anew.
fn go_on(load: &Load) -> Result<()> {
    let enough = u64::from(CLIENTS) * 2;
    ensure!(load.advances_by(enough, DEADLINE), "a load that goes on");
    Ok(())
}

fn start(world: &World, label: &str, listen: &[String]) -> Result<Nginx> {
    let listen: Result<_, _> = listen.iter().map(|it| it.parse()).collect();
    let options = Options {
        label: tag(label),
        listen: listen?,
        workers: WORKERS,
    };
    Nginx::start(world.server(), &options)
}

fn instance(stage: &Stage, label: &str, listen: &[String]) -> Result<Nginx> {
    let nginx = start(&stage.world, label, listen)?;
    let registered = stage.daemon().register(SERVICE, nginx.pid(), label)?;
    let expected = WORKERS * listen.len();
    ensure!(registered.listeners as usize == expected, "{registered:?}");
    Ok(nginx)
}

/// Migrates to a master, and gives the mark of the switch.
fn migrate(
    stage: &Stage,
    load: &Load,
    to: &Nginx,
    label: &str,
    retire: Option<&str>,
) -> Result<(Mark, MigrationResult)> {
    let parameters = Migrate {
        service: SERVICE.to_owned(),
        to_pid: Some(to.pid()),
        label: Some(label.to_owned()),
        retire: retire.map(ToOwned::to_owned),
        ..Migrate::default()
    };
    let mut switched = None;
    let result = stage.migrate(&parameters, || switched = Some(load.mark()))?;
    ensure!(result.left_behind == 0, "{result:?}");
    Ok((switched.context("a switch")?, result))
}

fn status_of(stage: &Stage, label: &str) -> Result<InstanceStatus> {
    let instances = stage.status()?.instances;
    let ours = instances.into_iter().find(|it| it.label == label);
    ours.with_context(|| format!("{label} is gone"))
}

/// The listeners of an instance that are open.
fn cookies(stage: &Stage, label: &str) -> Result<BTreeSet<u64>> {
    let listeners = status_of(stage, label)?.listeners;
    let open = listeners.iter().filter(|it| it.accept_queue.is_some());
    Ok(open.map(|it| it.cookie).collect())
}

fn tell(what: &str, report: &Report, more: &str) {
    let ledger = &report.connections;
    let _ = writeln!(
        io::stderr(),
        "{what}, {} connections, {} a second, {} lost, longest {:?}{more}",
        ledger.begun(),
        report.rate(),
        ledger.lost(),
        Duration::from_millis(u64::try_from(ledger.longest().as_millis()).unwrap_or(u64::MAX)),
    );
}
