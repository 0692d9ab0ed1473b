//! nginx masters that hand over to each other, on a link with a round trip of 20 ms and under
//! connections over HTTP that never stop.

use std::{
    collections::BTreeSet,
    io::{self, Write},
    net::SocketAddr,
    ops::Range,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use reuseport_daemon::{
    api::wire::{GroupStatus, InstanceStatus, Migrate, MigrationResult, OutcomeCounts, Outcomes},
    lab::{
        ledger::Mark,
        load::{Load, LoadOptions, Protocol, Report},
        wire::Tag,
        world::World,
    },
};
use reuseport_tests::{
    machine::{Need, scaled},
    nginx::{Nginx, Options},
    outcomes::all_selected,
    stage::{DEADLINE, PORT, SERVICE, Stage, any_v4, far_away, tag},
    wait,
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
    let handovers = some_of(HANDOVERS)?;
    for number in 1..=handovers {
        let next = start(&world, &format!("v{number}"), &listen)?;
        serving.signal(Signal::QUIT)?;
        serving.exited()?;
        serving = next;
        go_on(&load)?;
    }
    let report = load.stop()?;
    tell(&format!("without: {handovers} handovers"), &report, "");
    ensure!(report.connections.lost() > 0, "nothing was lost");
    Ok(())
}

/// As many as this machine is asked for, back and forth at least.
fn some_of(handovers: u32) -> Result<u32> {
    Ok(scaled(handovers)?.max(2))
}

/// Every connection is answered; those between one switch and the next migration are answered by
/// the new master; the old one ends by itself; the program has run exactly once for each.
fn blue_green(what: &str, listen: &[String], reach: Reach, handovers: u32) -> Result<()> {
    let handovers = some_of(handovers)?;
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
    check(&report, &spans)?;
    check_outcomes(&stage, report.connections.begun())
}

/// A reload replaces the workers and keeps the listeners, which the workers inherit: the daemon has
/// nothing to do, and nothing goes astray. nginx loses nothing by it without the daemon either (0 of
/// 31,738 connections in 50 reloads).
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
    check(&report, &[])?;
    check_outcomes(&stage, report.connections.begun())
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
    // They speak one after the other, each behind all clients.
    let deadline = DEADLINE * if Need::Speed.unmet()?.is_some() { 4 } else { 1 };
    let mut later = Vec::new();
    let mut spans = Vec::new();
    for label in ["v1", "v2"] {
        let next = start(&stage.world, label, &listen)?;
        let (switched, _) = migrate(&stage, &load, &next, label, None)?;
        later.push(next);
        go_on(&load)?;
        ensure!(sessions.advances_by(2 * every_one, deadline), "sessions");
        spans.push((switched..load.mark(), tag(label)));
    }
    wait::until("a status with all sessions", || {
        Ok(status_of(&stage, "v0")?.sessions == every_one)
    })?;
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
    check(&report, &spans)?;
    check_outcomes(&stage, report.connections.begun() + every_one)
}

/// The serving master is killed. Its workers, and with them its listeners, are still there: the
/// daemon takes leave of the instance, and the kernel's hash takes over until the next one
/// registers. Nothing is lost with that, since nobody closes anything.
pub(crate) fn master_killed() -> Result<()> {
    let listen = [any_v4()];
    let stage = Stage::set(far_away()?, &listen)?;
    let mut first = instance(&stage, "v0", &listen)?;
    let load = churn(&stage.world, Reach::V4)?;
    first.kill_master()?;
    wait::until("an instance that is gone", || {
        Ok(status_of(&stage, "v0")?.state == "gone")
    })?;
    go_on(&load)?;
    let second = instance(&stage, "v1", &listen)?;
    let serving = status_of(&stage, "v1")?.state;
    ensure!(serving == "serving", "v1 is {serving}");
    let registered = load.mark();
    go_on(&load)?;
    // Nothing of the first's is under way any more.
    drop(first);
    go_on(&load)?;
    let span = registered..load.mark();
    let report = load.stop()?;
    drop(second);
    let Outcomes { new, migrating, .. } = only_group(&stage)?.outcomes;
    let by_kernel = new.kernel;
    let more = format!(", {by_kernel} by the kernel's hash");
    tell("master killed", &report, &more);
    check(&report, &[(span, tag("v1"))])?;
    ensure!(by_kernel > 0, "the table was followed all the time");
    let runs = new.selected + by_kernel;
    ensure!(runs == report.connections.begun(), "{new:?}");
    ensure!(migrating == OutcomeCounts::default(), "{migrating:?}");
    Ok(())
}

/// A reload with a worker less closes that worker's listener, with whatever it has. The program
/// moves its connections to the other one, by the neighbours in the table. Listeners that come or
/// go with a reload are taken in by registering again.
pub(crate) fn reload_with_a_worker_less() -> Result<()> {
    let listen = [any_v4()];
    let stage = Stage::set(far_away()?, &listen)?;
    let mut nginx = instance(&stage, "v0", &listen)?;
    let load = churn(&stage.world, Reach::V4)?;
    nginx.reload(WORKERS - 1)?;
    go_on(&load)?;
    register(&stage, &nginx, "v0", WORKERS - 1)?;
    nginx.reload(WORKERS)?;
    register(&stage, &nginx, "v0", WORKERS)?;
    go_on(&load)?;
    let report = load.stop()?;
    let group = only_group(&stage)?;
    let Outcomes { new, migrating, .. } = group.outcomes;
    let moved = migrating.selected + migrating.probed;
    let more = format!(", {} probed, {moved} moved by the kernel", new.probed);
    tell("a worker less", &report, &more);
    ensure!(new.probed > 0, "no bucket of the closed listener: {new:?}");
    if group.program == "select" {
        // Before Linux 5.14 a listener that closes takes its connections with it.
        return Ok(());
    }
    let runs = new.selected + new.probed;
    ensure!(runs == report.connections.begun(), "{new:?}");
    ensure!(migrating.parked + migrating.kernel == 0, "{migrating:?}");
    check(&report, &[])
}

/// The same without the daemon: what the closed listener had is lost.
pub(crate) fn reload_with_a_worker_less_without() -> Result<()> {
    let world = far_away()?;
    let mut nginx = start(&world, "v0", &[any_v4()])?;
    let load = churn(&world, Reach::V4)?;
    nginx.reload(WORKERS - 1)?;
    go_on(&load)?;
    let report = load.stop()?;
    tell("without: a worker less", &report, "");
    ensure!(report.connections.lost() > 0, "nothing was lost");
    Ok(())
}

/// Nothing lost, and each span answered by its label alone.
fn check(report: &Report, spans: &[(Range<Mark>, Tag)]) -> Result<()> {
    let ledger = &report.connections;
    ledger.check_complete()?;
    for (span, expected) in spans {
        let answered = ledger.check_within(span.clone(), *expected)?;
        ensure!(answered > 0, "nothing went to {expected}");
    }
    Ok(())
}

/// The program chose a listener by its table, and did so once for every connection, at each of the
/// service's addresses.
fn check_outcomes(stage: &Stage, connections: u64) -> Result<()> {
    let mut runs = 0;
    for group in stage.status()?.groups {
        let here = group.outcomes.new.selected;
        all_selected(&group.outcomes, here)?;
        ensure!(here > 0, "nobody came to {}", group.listen);
        runs += here;
    }
    ensure!(runs == connections, "{runs} runs for {connections}");
    Ok(())
}

/// The service's only address.
fn only_group(stage: &Stage) -> Result<GroupStatus> {
    let first = stage.status()?.groups.into_iter().next();
    first.context("a group")
}

/// The addresses at which clients try a service.
#[derive(Clone, Copy)]
enum Reach {
    V4,
    V6,
    Both,
}

impl Reach {
    fn targets(self, world: &World) -> Vec<SocketAddr> {
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
pub(crate) fn go_on(load: &Load) -> Result<()> {
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
    register(stage, &nginx, label, WORKERS * listen.len())?;
    Ok(nginx)
}

fn register(stage: &Stage, nginx: &Nginx, label: &str, listeners: usize) -> Result<()> {
    let registered = stage.daemon().register(SERVICE, nginx.pid(), label)?;
    let complete = registered.listeners as usize == listeners;
    ensure!(complete, "{registered:?} instead of {listeners}");
    Ok(())
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
