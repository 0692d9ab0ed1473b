//! Parking for servers of every shape, and of every user.

use std::{
    io::{self, Write},
    net::SocketAddr,
    os::fd::AsFd,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use reuseport_daemon::{
    api::wire::{AddService, ListenerStatus},
    lab::{
        fixture::Fixture,
        server::{Options, Stop},
        world::World,
    },
    sys::{process::Process, sock_diag::SockDiag, socket},
};
use reuseport_tests::{
    held::instance_status,
    people::{NOBODY, server_as},
    stage::{DEADLINE, PORT, SERVICE, Stage, any_v4, listening},
};

use super::{
    churn,
    end::{End, check_losses},
    gap, park_as,
    sums::check_sums,
};

const CLIENTS: u32 = 16;
/// Each of a clean end and a kill.
const ROUNDS: u32 = 2;

pub(crate) fn ipv6() -> Result<()> {
    let world = World::loopback()?;
    let targets = vec![world.v6(PORT)];
    let listen = [format!("[::]:{PORT},v6only")];
    comes_back(world, targets, &listen, 1, None)
}

pub(crate) fn dual_stack() -> Result<()> {
    let world = World::loopback()?;
    let targets = vec![world.v4(PORT), world.v6(PORT)];
    comes_back(world, targets, &[format!("[::]:{PORT}")], 1, None)
}

pub(crate) fn two_addresses() -> Result<()> {
    let world = World::loopback()?;
    let targets = vec![world.v4(PORT), world.v6(PORT)];
    let listen = [any_v4(), format!("[::]:{PORT},v6only")];
    comes_back(world, targets, &listen, 1, None)
}

pub(crate) fn eight_workers() -> Result<()> {
    let world = World::loopback()?;
    let targets = vec![world.v4(PORT)];
    comes_back(world, targets, &[any_v4()], 8, None)
}

pub(crate) fn another_user() -> Result<()> {
    let world = World::loopback()?;
    let targets = vec![world.v4(PORT)];
    comes_back(world, targets, &[any_v4()], 1, Some(NOBODY))
}

/// The only server closes and ends, or is killed, and comes back half a second later, in turns.
fn comes_back(
    world: World,
    targets: Vec<SocketAddr>,
    listen: &[String],
    workers: u16,
    uid: Option<u32>,
) -> Result<()> {
    let parameters = AddService {
        listen: listen.to_vec(),
        user: uid.map(|it| it.to_string()),
        ..AddService::default()
    };
    let stage = park_as(world, parameters)?;
    let start = |number: u32| -> Result<Fixture> {
        let addresses: Vec<&str> = listen.iter().map(String::as_str).collect();
        let label = format!("v{number}");
        let options = Options {
            workers,
            ..listening(&label, &addresses)
        };
        let server = match uid {
            None => stage.server(&options)?,
            Some(uid) => server_as(uid, stage.world.server(), &options)?,
        };
        stage.daemon().register(SERVICE, server.pid(), &label)?;
        Ok(server)
    };
    let mut serving = Some(start(0)?);
    let load = churn(&stage, targets, CLIENTS)?;
    let mut ends = Vec::new();
    for number in 1..=2 * ROUNDS {
        ensure!(load.advances_by(500, DEADLINE), "a load under way");
        if let Some(mut ending) = serving.take() {
            let begun = Instant::now();
            if number % 2 == 0 {
                // Which kills it.
                drop(ending);
                ends.push(End::since(begun));
            } else {
                ending.stop_listening(Stop::Close)?;
                ends.push(End::since(begun));
                ending.exit()?;
            }
        }
        gap(&stage, CLIENTS)?;
        serving = Some(start(number)?);
    }
    ensure!(load.advances_by(500, DEADLINE), "a load that goes on");
    let ledger = load.stop()?.connections;
    let _ = writeln!(
        io::stderr(),
        "{listen:?}, {workers} workers: {} connections, {} lost, longest {:?}",
        ledger.begun(),
        ledger.lost(),
        Duration::from_millis(u64::try_from(ledger.longest().as_millis()).unwrap_or(u64::MAX)),
    );
    ensure!(ledger.lost() <= u64::from((CLIENTS + 1) * ROUNDS));
    check_losses(&ledger, &ends)?;
    check_sums(&stage, &ledger)
}

/// Shuts down an instance's listeners through duplicates, but for one, and says when each ended.
pub(super) fn shut_down_all_but_one(
    stage: &Stage,
    server: &Fixture,
    label: &str,
) -> Result<Vec<End>> {
    let instance = instance_status(stage, SERVICE, label)?.context("the instance")?;
    let all_but_one = instance.listeners.iter().skip(1);
    all_but_one
        .map(|listener| {
            let begun = Instant::now();
            shut_down(stage, server, listener)?;
            Ok(End::since(begun))
        })
        .collect()
}

/// Shuts down one of the two listeners that an instance has at an address.
pub(crate) fn shut_down_one_of_two(stage: &Stage, server: &Fixture, label: &str) -> Result<()> {
    let listeners = instance_status(stage, SERVICE, label)?
        .context("the instance")?
        .listeners;
    let beside = |it: &&ListenerStatus| {
        let here = listeners.iter().filter(|other| other.listen == it.listen);
        here.count() == 2
    };
    let one = listeners.iter().find(beside).context("two at an address")?;
    shut_down(stage, server, one)
}

fn shut_down(stage: &Stage, server: &Fixture, listener: &ListenerStatus) -> Result<()> {
    let diag = stage.world.server().enter(SockDiag::open)??;
    let process = Process::open(server.pid())?;
    let rows = diag.listeners(Some(PORT))?;
    let row = rows.iter().find(|row| row.cookie.0 == listener.cookie);
    let inode = row.context("an open listener")?.inode;
    let mut sockets = process.open_sockets()?.into_iter();
    let found = sockets.find(|it| it.1 == inode);
    let duplicate = process.descriptor(found.context("its descriptor")?.0)?;
    Ok(socket::shutdown(duplicate.as_fd())?)
}
