//! A service that nobody serves for a while, and whose clients wait.
//!
//! What a process has accepted dies with it. So where one is killed, the ledger may lack answers, and
//! every scenario says which: never more than there were connections accepted, and never one that
//! began when the process was dead.

pub(crate) mod commands;
mod end;
pub(crate) mod nginx;
pub(crate) mod shapes;
pub(crate) mod store;
mod sums;

use std::{
    io::{self, Write},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use reuseport_daemon::{
    api::wire::{AddService, Changed, OutcomeCounts, ParkingStatus, ServiceRef},
    lab::{
        ledger::Ledger,
        load::{Load, LoadOptions},
        server::Stop,
        world::World,
    },
    sys::sock_diag::SockDiag,
};
use reuseport_tests::{
    held::{PATIENCE, Stopped, until_state},
    machine::scaled,
    stage::{DEADLINE, PORT, SERVICE, Stage, any_v4, far_away, v4},
    wait::until,
};
use rustix::process::Signal;

use self::{
    end::{End, check_accepted, check_closed, check_losses},
    sums::check_sums,
};

/// From the end of one server to the start of the next.
const GAP: Duration = Duration::from_millis(500);

/// What the start of a server, its registration and a full link may add to a wait.
const SLACK: Duration = Duration::from_secs(2);

const CLIENTS: u32 = 32;
const ROUNDS: u32 = 5;
const REMOVALS: u32 = 16;
const MANY: u32 = 1_000;

pub(crate) fn killed_on_loopback() -> Result<()> {
    killed(World::loopback()?)
}

pub(crate) fn killed_on_a_link() -> Result<()> {
    killed(far_away()?)
}

/// The only server is killed in full swing, and the next one starts half a second later.
fn killed(world: World) -> Result<()> {
    let stage = park(world, &[any_v4()])?;
    let mut serving = Some(stage.instance(&v4("v0"))?);
    let load = churn(&stage, vec![stage.world.v4(PORT)], CLIENTS)?;
    let (mut kills, mut longest) = (Vec::new(), Duration::ZERO);
    for number in 1..=ROUNDS {
        ensure!(load.advances_by(500, DEADLINE), "a load under way");
        let begun = Instant::now();
        // Which kills it.
        drop(serving.take());
        kills.push(End::since(begun));
        let gap = gap(&stage, CLIENTS)?;
        serving = Some(stage.instance(&v4(&format!("v{number}")))?);
        longest = longest.max(gap.elapsed());
    }
    ensure!(load.advances_by(500, DEADLINE), "a load that goes on");
    let ledger = load.stop()?.connections;
    tell("killed", &ledger, longest);
    let most = u64::from(CLIENTS * ROUNDS);
    ensure!(ledger.lost() <= most, "{} lost", ledger.lost());
    check_losses(&ledger, &kills)?;
    check_waits(&ledger, longest)?;
    check_sums(&stage, &ledger)
}

/// The server has accepted nothing for a while when it is killed, so that nearly all there is waits
/// in its queue: of that nothing is lost.
pub(crate) fn killed_with_a_full_queue() -> Result<()> {
    let stage = park(far_away()?, &[any_v4()])?;
    let mut serving = stage.instance(&v4("v0"))?;
    let load = churn(&stage, vec![stage.world.v4(PORT)], CLIENTS)?;
    let (mut kills, mut longest) = (Vec::new(), Duration::ZERO);
    let mut accepted = 0;
    for number in 1..=ROUNDS {
        ensure!(load.advances_by(500, DEADLINE), "a load under way");
        let stands = Stopped::stop(&serving)?;
        let sessions = sessions_of_all(&stage, CLIENTS)?;
        accepted += sessions;
        // It stands, and so accepts nothing until it is dead.
        kills.push(End::since(Instant::now()));
        serving.signal(Signal::KILL)?;
        drop(stands);
        let next = format!("v{number}");
        let gap = gap(&stage, CLIENTS)?;
        serving = stage.instance(&v4(&next))?;
        longest = longest.max(gap.elapsed());
    }
    ensure!(load.advances_by(500, DEADLINE), "a load that goes on");
    let ledger = load.stop()?.connections;
    tell("killed with a full queue", &ledger, longest);
    check_accepted(&ledger, accepted)?;
    check_losses(&ledger, &kills)?;
    check_sums(&stage, &ledger)
}

pub(crate) fn closed_on_loopback() -> Result<()> {
    closed(World::loopback()?)
}

pub(crate) fn closed_on_a_link() -> Result<()> {
    closed(far_away()?)
}

/// The only server closes its listeners, answers what it has accepted and ends; the next one starts
/// half a second later.
fn closed(world: World) -> Result<()> {
    let stage = park(world, &[any_v4()])?;
    let mut serving = stage.instance(&v4("v0"))?;
    let load = churn(&stage, vec![stage.world.v4(PORT)], CLIENTS)?;
    let (mut ends, mut longest) = (Vec::new(), Duration::ZERO);
    for number in 1..=ROUNDS {
        ensure!(load.advances_by(500, DEADLINE), "a load under way");
        let begun = Instant::now();
        serving.stop_listening(Stop::Close)?;
        ends.push(End::since(begun));
        serving.exit()?;
        let gap = gap(&stage, CLIENTS)?;
        serving = stage.instance(&v4(&format!("v{number}")))?;
        longest = longest.max(gap.elapsed());
    }
    ensure!(load.advances_by(500, DEADLINE), "a load that goes on");
    let ledger = load.stop()?.connections;
    tell("closed", &ledger, longest);
    check_closed(&ledger, &ends)?;
    check_waits(&ledger, longest)?;
    check_sums(&stage, &ledger)
}

/// A server closes its listeners and lives on, as one does that lets its sessions end. It serves no
/// more for that, and the next one serves as soon as it registers.
pub(crate) fn closed_and_alive() -> Result<()> {
    let stage = park(far_away()?, &[any_v4()])?;
    let mut old = stage.instance(&v4("v1"))?;
    let load = churn(&stage, vec![stage.world.v4(PORT)], CLIENTS)?;
    let begun = Instant::now();
    old.stop_listening(Stop::Close)?;
    let end = End::since(begun);
    until_state(&stage, SERVICE, "v1", "retired")?;
    let registered = stage.server(&v4("v2"))?;
    let answer = stage.daemon().register(SERVICE, registered.pid(), "v2")?;
    ensure!(answer.state == "serving", "{answer:?}");
    ensure!(load.advances_by(500, DEADLINE), "a load that goes on");
    check_closed(&load.stop()?.connections, &[end])
}

/// One that stands by takes over, and gets what the kernel has taken to the parking listener before
/// anybody knew that it would.
pub(crate) fn heir() -> Result<()> {
    let stage = park(far_away()?, &[any_v4()])?;
    let mut serving = stage.instance(&v4("v0"))?;
    let load = churn(&stage, vec![stage.world.v4(PORT)], CLIENTS)?;
    let (mut kills, mut accepted) = (Vec::new(), 0);
    for number in 1..=ROUNDS {
        let next = format!("v{number}");
        let heir = stage.instance(&v4(&next))?;
        ensure!(load.advances_by(500, DEADLINE), "a load under way");
        let stands = Stopped::stop(&serving)?;
        accepted += sessions_of_all(&stage, CLIENTS)?;
        // It stands, and so accepts nothing until it is dead.
        kills.push(End::since(Instant::now()));
        serving.signal(Signal::KILL)?;
        drop(stands);
        until_state(&stage, SERVICE, &next, "serving")?;
        serving = heir;
    }
    ensure!(load.advances_by(500, DEADLINE), "a load that goes on");
    let ledger = load.stop()?.connections;
    let parked = stage.status()?.groups[0].outcomes.migrating.parked;
    ensure!(parked > 0, "nobody waited in a queue");
    ensure!(ledger.lost() <= accepted, "{} lost", ledger.lost());
    check_losses(&ledger, &kills)?;
    check_sums(&stage, &ledger)
}

/// Clients that come before the first server wait for it.
pub(crate) fn before_the_first_instance() -> Result<()> {
    let stage = park(far_away()?, &[any_v4()])?;
    let load = begin(&stage, vec![stage.world.v4(PORT)], CLIENTS)?;
    until_parked(&stage, CLIENTS)?;
    let before = parked(&stage)?;
    ensure!(before.open && before.unserved_ms.is_some(), "{before:?}");
    // Nobody is told of a server that has not registered: not even that nobody else is there.
    let server = stage.server(&v4("v1"))?;
    let still = parked(&stage)?;
    ensure!(still.queued == CLIENTS, "{still:?}");
    stage.daemon().register(SERVICE, server.pid(), "v1")?;
    ensure!(load.advances_by(500, DEADLINE), "a load under way");
    let ledger = load.stop()?.connections;
    ledger.check_complete()?;
    let OutcomeCounts { parked, .. } = outcomes(&stage)?;
    ensure!(parked == u64::from(CLIENTS), "{parked} parked");
    check_sums(&stage, &ledger)
}

/// The service is removed while clients connect as fast as they can, and servers listen that nobody
/// has registered: they get those that wait, and those that are about to.
pub(crate) fn removed() -> Result<()> {
    let stage = park(World::loopback()?, &[any_v4()])?;
    let _server = stage.server(&v4("v1"))?;
    for _ in 0..scaled(REMOVALS)? {
        let load = begin(&stage, vec![stage.world.v4(PORT)], MANY)?;
        until("a client waits", || Ok(queued(&stage)? > 0))?;
        let service = SERVICE.to_owned();
        let _: Changed = stage
            .daemon()
            .call("RemoveService", &ServiceRef { service })?;
        ensure!(load.advances_by(500, DEADLINE), "a load that goes on");
        load.stop()?.connections.check_complete()?;
        let parameters = AddService {
            name: SERVICE.to_owned(),
            listen: vec![any_v4()],
            park: true,
            ..AddService::default()
        };
        let _: Changed = stage.daemon().call("AddService", &parameters)?;
    }
    Ok(())
}

/// The parking listener gets nothing while the table leads to a listener that lives, though all but
/// one have been closed: what misses it at first is parked, moves on at once, and then nothing does.
pub(crate) fn one_of_eight_listeners_is_left() -> Result<()> {
    let stage = park(World::loopback()?, &[any_v4()])?;
    let mut options = v4("v1");
    options.workers = 8;
    let server = stage.instance(&options)?;
    let load = churn(&stage, vec![stage.world.v4(PORT)], 8)?;
    ensure!(load.advances_by(2_000, DEADLINE), "a load under way");
    ensure!(outcomes(&stage)?.parked == 0, "parked while all listen");
    let ends = shapes::shut_down_all_but_one(&stage, &server, "v1")?;
    until("the listener that is left has every bucket", || {
        let status = stage.status()?;
        let listeners = status.instances.iter().flat_map(|it| &it.listeners);
        Ok(listeners.count() == 1)
    })?;
    ensure!(load.advances_by(100, DEADLINE), "a load that goes on");
    let before = outcomes(&stage)?;
    ensure!(load.advances_by(2_000, DEADLINE), "a load that goes on");
    let after = outcomes(&stage)?;
    let ledger = load.stop()?.connections;
    ensure!(after.parked == before.parked, "{before:?} became {after:?}");
    ensure!(after.probed == before.probed, "{before:?} became {after:?}");
    check_closed(&ledger, &ends)?;
    check_sums(&stage, &ledger)
}

/// Nobody has waited much longer than nobody served.
fn check_waits(ledger: &Ledger, unserved: Duration) -> Result<()> {
    let longest = ledger.longest();
    ensure!(
        longest >= GAP && longest < unserved + SLACK,
        "the longest took {longest:?}, and nobody served for {unserved:?}"
    );
    Ok(())
}

/// Lets half a second go by without a server, at the end of which every client waits.
fn gap(stage: &Stage, clients: u32) -> Result<Instant> {
    let began = Instant::now();
    until_parked(stage, clients)?;
    thread::sleep(GAP.saturating_sub(began.elapsed()));
    let queued = queued(stage)?;
    ensure!(queued == clients, "{queued} wait");
    Ok(began)
}

pub(crate) fn until_parked(stage: &Stage, clients: u32) -> Result<()> {
    until("every client waits", || Ok(queued(stage)? == clients))
}

/// How many connections wait, in all groups.
fn queued(stage: &Stage) -> Result<u32> {
    let groups = stage.status()?.groups;
    let parking = groups.iter().filter_map(|it| it.parking.as_ref());
    Ok(parking.map(|it| it.queued).sum())
}

/// How many connections the stopped server has accepted, once every client has one or waits.
fn sessions_of_all(stage: &Stage, clients: u32) -> Result<u64> {
    let diag = stage.world.server().enter(SockDiag::open)??;
    let mut accepted = 0;
    until("every client is connected", || {
        let sessions = diag.sessions(PORT)?;
        accepted = sessions.inodes.len();
        Ok(accepted + sessions.unaccepted.len() >= clients as usize)
    })?;
    Ok(accepted as u64)
}

/// How the service's first group parks.
fn parked(stage: &Stage) -> Result<ParkingStatus> {
    let group = stage.status()?.groups.into_iter().next();
    group
        .and_then(|it| it.parking)
        .context("a group that parks")
}

/// What the programs of all groups did with new connections.
fn outcomes(stage: &Stage) -> Result<OutcomeCounts> {
    let mut sum = OutcomeCounts::default();
    for group in stage.status()?.groups {
        let new = group.outcomes.new;
        sum.selected += new.selected;
        sum.probed += new.probed;
        sum.parked += new.parked;
        sum.kernel += new.kernel;
    }
    Ok(sum)
}

/// A daemon with one service that parks.
fn park(world: World, listen: &[String]) -> Result<Stage> {
    park_as(
        world,
        AddService {
            listen: listen.to_vec(),
            ..AddService::default()
        },
    )
}

fn park_as(world: World, parameters: AddService) -> Result<Stage> {
    park_on(Stage::bare(world)?, parameters)
}

fn park_on(stage: Stage, parameters: AddService) -> Result<Stage> {
    let parameters = AddService {
        name: SERVICE.to_owned(),
        park: true,
        ..parameters
    };
    let _: Changed = stage.daemon().call("AddService", &parameters)?;
    Ok(stage)
}

/// Clients as fast as they can be.
fn churn(stage: &Stage, targets: Vec<std::net::SocketAddr>, clients: u32) -> Result<Load> {
    let load = begin(stage, targets, clients)?;
    ensure!(load.advances_by(50, DEADLINE), "a load under way");
    Ok(load)
}

/// The same, whether or not anybody answers them yet.
pub(crate) fn begin(
    stage: &Stage,
    targets: Vec<std::net::SocketAddr>,
    clients: u32,
) -> Result<Load> {
    let options = LoadOptions {
        step_timeout: PATIENCE,
        ..LoadOptions::churn(targets, clients)
    };
    Ok(Load::start(stage.world.client(), options)?)
}

fn tell(what: &str, ledger: &Ledger, unserved: Duration) {
    let _ = writeln!(
        io::stderr(),
        "{what}: {} connections, {} lost, longest {} ms, unserved for {} ms at most",
        ledger.begun(),
        ledger.lost(),
        ledger.longest().as_millis(),
        unserved.as_millis()
    );
}
