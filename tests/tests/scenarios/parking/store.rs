//! What waits outlives the daemon where the service manager keeps the listener that it waits in.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, ErrorKind},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    os::fd::{AsFd, OwnedFd},
    time::Instant,
};

use anyhow::{Context, Result, bail, ensure};
use reuseport_daemon::{
    api::wire::{AddService, Changed, ServiceRef},
    lab::{ledger::LossKind, link::DEVICE, world::World},
    sys::{
        interface::Interface,
        netns::Netns,
        process::Process,
        socket::{self, SocketFacts, TcpFacts},
    },
};
use reuseport_tests::{
    ctl::Ctl,
    held::Stopped,
    sockets::{Made, tcp},
    stage::{DEADLINE, PORT, SERVICE, Stage, any_v4, far_away, listening, v4},
    wait::until,
};
use rustix::process::Signal;

use super::{
    CLIENTS, begin, churn,
    end::{End, check_accepted, check_losses},
    gap, park_on, sessions_of_all,
    sums::check_sums,
    tell, until_parked,
};

/// `FileDescriptorStoreMax=` for one address: two listeners at a time, and the probe.
pub(crate) const ROOM: usize = 3;

const ROUNDS: u32 = 4;

/// `O_CLOEXEC` in `/proc/PID/fdinfo`, in octal.
const CLOEXEC: u32 = 0o2_000_000;

/// Nobody serves yet, and one daemon after another is killed while everybody waits.
pub(crate) fn kept_before_the_first_instance() -> Result<()> {
    let mut stage = keeping(far_away()?, ROOM)?;
    let load = begin(&stage, vec![stage.world.v4(PORT)], CLIENTS)?;
    for _ in 0..ROUNDS {
        until_parked(&stage, CLIENTS)?;
        stage.replace_killed_daemon()?;
    }
    let server = stage.instance(&v4("v1"))?;
    ensure!(load.advances_by(500, DEADLINE), "a load under way");
    let ledger = load.stop()?.connections;
    drop(server);
    Ok(ledger.check_complete()?)
}

/// The next daemon can open no listener, since its address is away for a while: those that wait do so in
/// the one that is kept, and go to who serves when the address is back.
pub(crate) fn kept_while_none_can_be_opened() -> Result<()> {
    const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(198, 18, 1, 1);
    const PREFIX: u8 = 30;
    let stage = Stage::bare(far_away()?)?;
    stage.home().manager().keep_at_most(ROOM);
    let there = stage.world.v4(PORT);
    let parameters = AddService {
        listen: vec![there.to_string()],
        ..AddService::default()
    };
    let mut stage = park_on(stage, parameters)?;
    let load = begin(&stage, vec![there], CLIENTS)?;
    until_parked(&stage, CLIENTS)?;
    let kept = the_only_one(&stage)?;
    let be_at = |stage: &Stage, address: IpAddr| -> Result<()> {
        let device = stage.world.server().enter(|| Interface::named(DEVICE))??;
        Ok(device.add_address(address, PREFIX)?)
    };
    be_at(&stage, ELSEWHERE.into())?;
    stage.replace_killed_daemon()?;
    let log = stage.daemon().log();
    ensure!(log.contains("connections cannot be parked"), "{log}");
    ensure!(the_only_one(&stage)? == kept, "another one is kept");
    be_at(&stage, there.ip())?;
    let server = stage.instance(&listening("v1", &[&there.to_string()]))?;
    ensure!(load.advances_by(500, DEADLINE), "a load under way");
    let ledger = load.stop()?.connections;
    drop(server);
    Ok(ledger.check_complete()?)
}

pub(crate) fn kept_when_killed() -> Result<()> {
    both_end(Stage::replace_killed_daemon)
}

pub(crate) fn kept_when_stopped() -> Result<()> {
    both_end(Stage::restart_daemon)
}

/// The only server is killed in full swing, and then the daemon ends while connections wait. Both are
/// started again, and what is lost is what the server had accepted.
fn both_end(end_daemon: impl Fn(&mut Stage) -> Result<()>) -> Result<()> {
    let mut stage = keeping(far_away()?, ROOM)?;
    let mut serving = stage.instance(&v4("v0"))?;
    let load = churn(&stage, vec![stage.world.v4(PORT)], CLIENTS)?;
    let (mut kills, mut accepted) = (Vec::new(), 0);
    let began = Instant::now();
    for number in 1..=ROUNDS {
        ensure!(load.advances_by(500, DEADLINE), "a load under way");
        let stands = Stopped::stop(&serving)?;
        accepted += sessions_of_all(&stage, CLIENTS)?;
        // It stands, and so accepts nothing until it is dead.
        kills.push(End::since(Instant::now()));
        serving.signal(Signal::KILL)?;
        drop(stands);
        if number % 2 == 0 {
            // Otherwise they come while no daemon is there to see it.
            gap(&stage, CLIENTS)?;
        }
        end_daemon(&mut stage)?;
        gap(&stage, CLIENTS)?;
        serving = stage.instance(&v4(&format!("v{number}")))?;
    }
    ensure!(load.advances_by(500, DEADLINE), "a load that goes on");
    let ledger = load.stop()?.connections;
    tell("kept", &ledger, began.elapsed());
    check_accepted(&ledger, accepted)?;
    check_losses(&ledger, &kills)?;
    check_sums(&stage, &ledger)
}

/// The same without a store: what waits is reset when the daemon ends.
pub(crate) fn not_kept_without_a_store() -> Result<()> {
    let mut stage = keeping(far_away()?, 0)?;
    let load = begin(&stage, vec![stage.world.v4(PORT)], CLIENTS)?;
    until_parked(&stage, CLIENTS)?;
    stage.replace_killed_daemon()?;
    until_parked(&stage, CLIENTS)?;
    let server = stage.instance(&v4("v1"))?;
    ensure!(load.advances_by(500, DEADLINE), "a load under way");
    let ledger = load.stop()?.connections;
    drop(server);
    let reset = ledger.lost_by(LossKind::Reset);
    ensure!(reset >= u64::from(CLIENTS), "{reset} reset");
    Ok(())
}

/// One for each group is kept, another one in its place when it has been closed, and none of a service
/// that is no more.
pub(crate) fn kept_no_longer_than_needed() -> Result<()> {
    let mut stage = keeping(World::loopback()?, ROOM)?;
    let mut seen = BTreeSet::new();
    for number in 1..=3 {
        let server = stage.instance(&v4(&format!("v{number}")))?;
        seen.insert(the_only_one(&stage)?);
        drop(server);
        until("nobody serves", || {
            Ok(super::parked(&stage)?.unserved_ms.is_some())
        })?;
        stage.replace_killed_daemon()?;
        seen.insert(the_only_one(&stage)?);
    }
    ensure!(seen.len() == 6, "{seen:?}");
    let service = SERVICE.to_owned();
    let _: Changed = stage
        .daemon()
        .call("RemoveService", &ServiceRef { service })?;
    let kept = stage.home().manager().kept()?;
    ensure!(kept.is_empty(), "{kept:?}");
    let target = stage.world.v4(PORT);
    let refused = stage.world.client().enter(|| TcpStream::connect(target))?;
    ensure!(refused.is_err_and(|it| it.kind() == ErrorKind::ConnectionRefused));
    Ok(())
}

/// The name of the one that is kept, once there is one alone. It is the daemon's own listener.
fn the_only_one(stage: &Stage) -> Result<String> {
    let mut kept = Vec::new();
    until("one is kept", || {
        kept = stage.home().manager().kept()?;
        Ok(kept.len() == 1)
    })?;
    let (name, fd) = kept.pop().context("one")?;
    let facts = facts(&fd)?;
    ensure!(facts.listening && facts.reuseport, "{facts:?}");
    ensure!(name == format!("parking.{SERVICE}.{}", facts.cookie));
    Ok(name)
}

/// What is not what its name says is not touched, closed and forgotten; what belongs to a service that
/// is no more is closed for good.
pub(crate) fn wrong_ones_are_closed() -> Result<()> {
    let mut stage = keeping(World::loopback()?, 64)?;
    let load = begin(&stage, vec![stage.world.v4(PORT)], 8)?;
    until_parked(&stage, 8)?;
    let right = the_only_one(&stage)?;
    let here = stage.world.server();
    let elsewhere = Netns::create()?;
    let port = |number: u16| SocketAddr::from((Ipv4Addr::UNSPECIFIED, number));
    let named = |fd: &OwnedFd, service: &str| -> Result<String> {
        Ok(format!("parking.{service}.{}", facts(fd)?.cookie))
    };
    let plain = tcp(here, port(1), Made::Alone)?;
    let away = tcp(&elsewhere, port(PORT), Made::Listening)?;
    let moved = tcp(here, port(2), Made::Listening)?;
    let orphan = tcp(here, port(3), Made::Listening)?;
    let closed = tcp(here, port(4), Made::Listening)?;
    socket::shutdown(closed.as_fd())?;
    let (pipe, _other_end) = io::pipe()?;
    let wrong = vec![
        ("control.socket".to_owned(), plain.try_clone()?),
        (named(&plain, SERVICE)?, plain.try_clone()?),
        (format!("parking.{SERVICE}.1"), pipe.into()),
        (format!("parking.{SERVICE}.2"), away.try_clone()?),
        (named(&away, SERVICE)?, away.try_clone()?),
        (named(&closed, SERVICE)?, closed.try_clone()?),
        (named(&moved, SERVICE)?, moved.try_clone()?),
        (named(&orphan, "nosuch")?, orphan.try_clone()?),
        // Beside the right one, which is none the worse.
        (right.clone(), plain.try_clone()?),
    ];
    for (name, fd) in wrong {
        stage.home().manager().keep(&name, fd);
    }
    stage.replace_killed_daemon()?;

    the_only_one(&stage)?;
    ensure!(facts(&plain)?.listening, "a stranger was shut down");
    for (what, fd) in [("orphan", &orphan), ("moved", &moved), ("away", &away)] {
        ensure!(!facts(fd)?.listening, "{what} still listens");
    }
    let log = stage.daemon().log();
    for said in [
        "nothing of that name is kept",
        "it is not a listening TCP socket",
        "it is another socket",
        "the service does not listen there",
        "there is no such service any more",
    ] {
        ensure!(log.contains(said), "{said}: {log}");
    }
    check_descriptors(&stage)?;
    let server = stage.instance(&v4("v1"))?;
    ensure!(load.advances_by(100, DEADLINE), "a load under way");
    let ledger = load.stop()?.connections;
    drop(server);
    Ok(ledger.check_complete()?)
}

/// No socket that the daemon has would be a child's.
fn check_descriptors(stage: &Stage) -> Result<()> {
    let pid = stage.daemon().pid();
    for (number, _) in Process::open(pid)?.open_sockets()? {
        // One that has been closed meanwhile is nobody's.
        let Ok(info) = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")) else {
            continue;
        };
        let flags = info.lines().find_map(|it| it.strip_prefix("flags:"));
        let flags = u32::from_str_radix(flags.context("flags")?.trim(), 8)?;
        ensure!(flags & CLOEXEC != 0, "{number} is inherited");
    }
    Ok(())
}

/// Where nobody keeps them, the log and an examination say so; where somebody does, the latter does.
pub(crate) fn nobody_keeps_them() -> Result<()> {
    for (room, level, words) in [
        (0, "warning", "keeps no more descriptors"),
        (ROOM, "ok", "keeps parking listeners"),
    ] {
        let stage = keeping(World::loopback()?, room)?;
        let _server = stage.instance(&v4("v1"))?;
        let doctor = Ctl::of(stage.home())?;
        let doctor = doctor.run(&format!("--json doctor {SERVICE}"))?.result()?;
        let findings = doctor["findings"].as_array().context("findings")?;
        let says = |words: &str| {
            let mut findings = findings.iter();
            findings.find(|it| it["message"].as_str().is_some_and(|it| it.contains(words)))
        };
        says(words).with_context(|| format!("{words}: {doctor}"))?;
        let waits = says("connections would wait").context("a finding")?;
        ensure!(waits["level"] == level, "{waits}");
        let log = stage.daemon().log();
        let said = log.contains("connections that wait end with the daemon");
        ensure!(said == (room == 0), "{log}");
    }
    Ok(())
}

/// A service that parks, and a service manager that keeps so many descriptors.
pub(crate) fn keeping(world: World, room: usize) -> Result<Stage> {
    let stage = Stage::bare(world)?;
    stage.home().manager().keep_at_most(room);
    park_on(
        stage,
        AddService {
            listen: vec![any_v4()],
            ..AddService::default()
        },
    )
}

fn facts(socket: &OwnedFd) -> Result<TcpFacts> {
    match socket::facts(socket.as_fd())? {
        SocketFacts::Tcp(facts) => Ok(facts),
        SocketFacts::Other(_) | SocketFacts::NotASocket => bail!("no TCP socket"),
    }
}
