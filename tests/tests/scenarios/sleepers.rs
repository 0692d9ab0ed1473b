//! Acceptors that sleep when the kernel moves connections to them, which some kernels then let them do
//! (CVE-2026-46015).

use std::{collections::HashMap, fs, os::fd::AsFd};

use anyhow::{Context, Result, bail, ensure};
use reuseport_daemon::{
    api::wire::Migrate,
    domain::SocketCookie,
    lab::{
        fixture::Fixture,
        load::{Load, LoadOptions},
        server::Acceptor,
        sysctl,
        world::World,
    },
    sys::{
        netns::Netns,
        sock_diag::SockDiag,
        socket::{self, SocketFacts},
    },
};
use reuseport_tests::{
    ctl::Ctl,
    held::{PATIENCE, Stopped, until_queued},
    machine::leaves_asleep,
    people::server_in,
    sockets::{Made, connected, tcp},
    stage::{DEADLINE, PORT, SERVICE, Stage, any_v4, tag, v4},
    wait::until,
};
use rustix::process::Signal;

/// Connections in the queue of a listener that closes.
const WAITING: u32 = 5;

/// Without the daemon: who sleeps is left asleep where the daemon finds it so, with all that was moved
/// in the queue, until somebody connects; and is woken where it finds otherwise.
pub(crate) fn moved_by_the_kernel_alone() -> Result<()> {
    let world = World::loopback()?;
    sysctl::write(world.server(), "net/ipv4/tcp_migrate_req", "1")?;
    let new = server_in(world.server(), &v4("new"))?;
    let at = world.v4(PORT);
    // It has its epoll once it has accepted one.
    let mut clients = vec![connected(world.client(), at)?];
    until("it accepts", || {
        Ok(queued(world.server())?.values().all(|it| *it == 0))
    })?;

    let old = tcp(world.server(), any_v4().parse()?, Made::Listening)?;
    let SocketFacts::Tcp(facts) = socket::facts(old.as_fd())? else {
        bail!("a TCP socket");
    };
    // Each goes to either of the two, as the kernel's hash says.
    while queued(world.server())?[&facts.cookie] < WAITING {
        ensure!(clients.len() < 200, "the hash avoids a listener");
        clients.push(connected(world.client(), at)?);
    }
    until_asleep(&new, || Ok(waiting(&world, facts.cookie)? == 0))?;

    let asleep = leaves_asleep()?;
    socket::shutdown(old.as_fd())?;
    if asleep {
        until_asleep(&new, || Ok(true))?;
        ensure!(
            waiting(&world, facts.cookie)? == WAITING,
            "somebody woke it"
        );
        clients.push(connected(world.client(), at)?);
    }
    until("it accepts all", || Ok(waiting(&world, facts.cookie)? == 0))?;
    let made = clients.len();
    drop(clients);
    let counts = new.exit()?;
    ensure!(
        counts.accepted == u64::try_from(made)?,
        "{counts:?} of {made}"
    );
    Ok(())
}

/// Connections in the queues of all listeners but one.
fn waiting(world: &World, but: SocketCookie) -> Result<u32> {
    let queued = queued(world.server())?;
    Ok(queued
        .iter()
        .filter(|(it, _)| **it != but)
        .map(|it| it.1)
        .sum())
}

fn queued(netns: &Netns) -> Result<HashMap<SocketCookie, u32>> {
    let diag = netns.enter(SockDiag::open)??;
    let rows = diag.listeners(Some(PORT))?;
    Ok(rows.iter().map(|it| (it.cookie, it.accept_queue)).collect())
}

/// Waits until it holds and every thread of a server sleeps. One that has been woken is not asleep,
/// even before it runs.
fn until_asleep(server: &Fixture, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    until("everybody sleeps", || {
        if !holds()? {
            return Ok(false);
        }
        for thread in fs::read_dir(format!("/proc/{}/task", server.pid()))? {
            let stat = fs::read_to_string(thread?.path().join("stat"))?;
            // The name before it is in parentheses.
            let (_, rest) = stat.rsplit_once(") ").context("a thread's state")?;
            if !rest.starts_with('S') {
                return Ok(false);
            }
        }
        Ok(true)
    })
}

/// `v1`, which hangs with connections in its queue, and `v2`, which waits for some.
struct Case {
    stage: Stage,
    old: Fixture,
    new: Fixture,
}

impl Case {
    fn prepare(acceptor: Acceptor) -> Result<Self> {
        let stage = Stage::set(World::loopback()?, &[any_v4()])?;
        let old = stage.instance(&v4("v1"))?;
        let mut options = v4("v2");
        options.acceptor = acceptor;
        let new = stage.instance(&options)?;
        Ok(Self { stage, old, new })
    }

    /// Clients of which each has one connection, so that nobody but the daemon makes another.
    fn waiting_clients(&self) -> Result<Load> {
        let patient = LoadOptions {
            step_timeout: PATIENCE,
            ..LoadOptions::churn(vec![self.stage.world.v4(PORT)], WAITING)
        };
        let load = Load::start(self.stage.world.client(), patient)?;
        until_queued(&self.stage, SERVICE, "v1", WAITING)?;
        Ok(load)
    }
}

/// The clients go on, and `v2` has answered them all.
fn all_answered(load: Load) -> Result<()> {
    ensure!(
        load.advances_by(u64::from(WAITING) * 4, DEADLINE),
        "clients hang"
    );
    let ledger = load.stop()?.connections;
    ledger.check_complete()?;
    ensure!(
        ledger.by_label().keys().eq([&tag("v2")]),
        "{:?}",
        ledger.by_label()
    );
    Ok(())
}

/// A migration that shuts the old listeners down answers everybody, whoever has to be woken for it,
/// and says how many connections that took.
pub(crate) fn woken_by_a_migration() -> Result<()> {
    let asleep = leaves_asleep()?;
    for acceptor in [Acceptor::Level, Acceptor::Edge, Acceptor::Blocking] {
        let case = Case::prepare(acceptor)?;
        let _stands = Stopped::stop(&case.old)?;
        let load = case.waiting_clients()?;
        let parameters = Migrate {
            service: SERVICE.to_owned(),
            to: Some("v2".to_owned()),
            drain: Some("kernel".to_owned()),
            ..Migrate::default()
        };
        let result = case.stage.migrate(&parameters, || {})?;
        ensure!(result.moved_by_kernel == u64::from(WAITING), "{result:?}");
        ensure!((result.woken > 0) == asleep, "{acceptor:?}: {result:?}");
        ensure!(result.warnings.is_empty(), "{result:?}");
        all_answered(load)?;
    }
    Ok(())
}

/// The same where no migration accounts for it: the old server is killed, and its heir woken.
pub(crate) fn woken_after_a_kill() -> Result<()> {
    let case = Case::prepare(Acceptor::Level)?;
    let stands = Stopped::stop(&case.old)?;
    let load = case.waiting_clients()?;
    case.old.signal(Signal::KILL)?;
    all_answered(load)?;
    drop(stands);
    Ok(())
}

/// Somebody who does not wake up is no reason to wait for ever: the new server hangs, and the result
/// says so.
pub(crate) fn a_hanging_server_is_told_of() -> Result<()> {
    let asleep = leaves_asleep()?;
    let case = Case::prepare(Acceptor::Level)?;
    let stands = Stopped::stop(&case.old)?;
    let hangs = Stopped::stop(&case.new)?;
    let load = case.waiting_clients()?;
    let line = format!("--json migrate {SERVICE} --to v2 --drain kernel");
    let ran = Ctl::of(case.stage.home())?.run(&line)?;
    let result = ran.result()?;
    ensure!(ran.code == 0 && result["outcome"] == "done", "{ran:?}");
    let told = result["warnings"].to_string().contains("CVE-2026-46015");
    ensure!(told == asleep, "{ran:?}");
    hangs.go_on()?;
    drop(stands);
    all_answered(load)
}
