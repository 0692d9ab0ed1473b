//! Receivers that end, that do not acknowledge, and that are none; and a daemon that ends.

use std::{
    collections::BTreeMap,
    net::TcpStream,
    os::fd::OwnedFd,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Result, ensure};
use reuseport_daemon::{
    api::wire::Handed,
    lab::{fixture::Fixture, server::Acceptor, world::World},
};
use reuseport_tests::{
    ctl::{Ctl, last_line},
    held::{Held, Stopped, service_status, until_queued, until_state},
    receiving::{Receiving, acknowledge, register_self, until_receivers},
    stage::{SERVICE, Stage, any_v4, listening, tag},
    wait::until,
    waiting::{self, Waiting},
};
use rustix::process::Signal;
use serde_json::json;

use super::{Old, migrate, receiving};

/// As many connections as a receiver may have that it has not acknowledged.
const ROOM: usize = 16;

/// A service with a server that hangs, and this process as the instance that it moves to.
struct Case {
    stage: Stage,
    old: Old,
    // Open for as long as the instance is to be one.
    _listener: OwnedFd,
}

impl Case {
    fn prepare() -> Result<Self> {
        let stage = Stage::set(World::loopback()?, &[any_v4()])?;
        let old = Old::start(&stage, Acceptor::Level)?;
        let listener = register_self(&stage, "t")?;
        Ok(Self {
            stage,
            old,
            _listener: listener,
        })
    }

    fn receive(&self) -> Result<Receiving> {
        let receiving = Receiving::start(&self.stage.home().socket())?;
        until_receivers(&self.stage, "t", 1)?;
        Ok(receiving)
    }

    /// A server in a process of its own, which receives for this one, being its child.
    fn helper(&self, label: &str, port: u16) -> Result<Fixture> {
        let elsewhere = listening(label, &[&format!("0.0.0.0:{port}")]);
        self.stage.server(&receiving(&self.stage, elsewhere))
    }

    fn begin(&self) -> Result<Held> {
        Held::begin(&self.stage, SERVICE, "--to t --drain handoff")
    }
}

/// Acknowledges a connection and answers its client.
fn serve(receiving: &Receiving, (handed, connection): (Handed, OwnedFd)) -> Result<()> {
    ensure!(receiving.acknowledge(handed.id)?, "{handed:?}");
    waiting::answer(connection, tag("t"))
}

/// One of two receivers is killed before it has acknowledged anything: the other one gets it.
pub(crate) fn killed_beside_another() -> Result<()> {
    const WAITING: u32 = 40;
    let case = Case::prepare()?;
    let first = case.helper("r1", 7001)?;
    let _second = case.helper("r2", 7002)?;
    until_receivers(&case.stage, "t", 2)?;
    let stands = case.old.stop()?;
    let clients = Waiting::for_instance(&case.stage, "v1", WAITING)?;
    let hangs = Stopped::stop(&first)?;
    let migration = case.begin()?;
    until_queued(&case.stage, SERVICE, "v1", 0)?;
    ensure!(service_status(&case.stage, SERVICE)?.migration.is_some());
    first.signal(Signal::KILL)?;
    drop(hangs);
    let result = migration.ends("done", 0)?;
    ensure!(result.handed_off == u64::from(WAITING), "{result:?}");
    let answered = clients.answered()?;
    ensure!(answered == BTreeMap::from([(tag("r2"), WAITING)]));
    stands.go_on()?;
    case.old.ends_without_work()
}

/// The only receiver is killed: what it had waits in the daemon for the next one.
pub(crate) fn killed_alone() -> Result<()> {
    const WAITING: u32 = 10;
    let case = Case::prepare()?;
    let first = case.helper("r1", 7001)?;
    until_receivers(&case.stage, "t", 1)?;
    let stands = case.old.stop()?;
    let clients = Waiting::for_instance(&case.stage, "v1", WAITING)?;
    let hangs = Stopped::stop(&first)?;
    let migration = case.begin()?;
    until_queued(&case.stage, SERVICE, "v1", 0)?;
    first.signal(Signal::KILL)?;
    drop(hangs);
    until_receivers(&case.stage, "t", 0)?;
    ensure!(service_status(&case.stage, SERVICE)?.migration.is_some());
    let _second = case.helper("r2", 7002)?;
    let result = migration.ends("done", 0)?;
    ensure!(result.handed_off == u64::from(WAITING), "{result:?}");
    let answered = clients.answered()?;
    ensure!(answered == BTreeMap::from([(tag("r2"), WAITING)]));
    stands.go_on()?;
    case.old.ends_without_work()
}

/// Nobody acknowledges until the time is up: what was handed over counts as left behind, and is
/// acknowledged later. The same migration again drains on.
pub(crate) fn nobody_acknowledges() -> Result<()> {
    const WAITING: u32 = 20;
    let case = Case::prepare()?;
    let mut receiving = case.receive()?;
    let stands = case.old.stop()?;
    let clients = Waiting::for_instance(&case.stage, "v1", WAITING)?;
    let result = migrate(&case.stage, "--to t --drain-timeout 2s", "timed_out", 5)?;
    ensure!(result.left_behind == u64::from(WAITING), "{result:?}");
    ensure!(
        result.handed_off == 0 && result.accepted_while_draining == 0,
        "{result:?}"
    );
    until_queued(&case.stage, SERVICE, "v1", WAITING - 16)?;

    for (handed, connection) in receiving.take(ROOM)? {
        ensure!(handed.listen == any_v4(), "{handed:?}");
        let connection = TcpStream::from(connection);
        ensure!(connection.peer_addr()?.to_string() == handed.peer);
        serve(&receiving, (handed, connection.into()))?;
    }
    let migration = case.begin()?;
    let rest = receiving.take(WAITING as usize - ROOM)?;
    ensure!(service_status(&case.stage, SERVICE)?.migration.is_some());
    for given in rest {
        serve(&receiving, given)?;
    }
    let result = migration.ends("done", 0)?;
    ensure!(
        result.handed_off == 4 && result.left_behind == 0,
        "{result:?}"
    );
    let answered = clients.answered()?;
    ensure!(answered == BTreeMap::from([(tag("t"), WAITING)]));
    stands.go_on()?;
    case.old.ends_without_work()
}

/// Only who has received a connection can acknowledge it, and only as long as it is nobody else's.
pub(crate) fn acknowledgements() -> Result<()> {
    let case = Case::prepare()?;
    let socket = case.stage.home().socket();
    let mut receiving = case.receive()?;
    let stands = case.old.stop()?;
    let clients = Waiting::for_instance(&case.stage, "v1", 3)?;
    let migration = case.begin()?;
    let mut given = receiving.take(3)?;
    for (handed, _) in &given {
        ensure!(!acknowledge_as_stranger(&socket, handed.id)?, "{handed:?}");
    }
    ensure!(
        !acknowledge(&socket, u64::MAX)?,
        "an id that nobody was given"
    );
    ensure!(service_status(&case.stage, SERVICE)?.migration.is_some());
    for (handed, connection) in given.drain(..2) {
        ensure!(receiving.acknowledge(handed.id)?);
        ensure!(receiving.acknowledge(handed.id)?, "once more");
        waiting::answer(connection, tag("t"))?;
    }

    let (before, stale) = given.remove(0);
    drop(receiving);
    until_receivers(&case.stage, "t", 0)?;
    ensure!(!acknowledge(&socket, before.id)?, "it waits for another");
    drop(stale);
    let mut receiving = case.receive()?;
    let (now, connection) = receiving.take_one()?;
    ensure!(now.id != before.id && now.peer == before.peer);
    ensure!(!acknowledge(&socket, before.id)?, "it is another's");
    serve(&receiving, (now, connection))?;
    let result = migration.ends("done", 0)?;
    ensure!(result.handed_off == 3, "{result:?}");
    let answered = clients.answered()?;
    ensure!(answered == BTreeMap::from([(tag("t"), 3)]));
    stands.go_on()?;
    case.old.ends_without_work()
}

/// Another process, of the same user, says that it has received a connection. Whether that helps.
fn acknowledge_as_stranger(socket: &Path, id: u64) -> Result<bool> {
    const SCRIPT: &str = "import socket, sys\n\
        control = socket.socket(socket.AF_UNIX)\n\
        control.connect(sys.argv[1])\n\
        control.sendall(sys.argv[2].encode() + b'\\0')\n\
        print(control.makefile('rb').read1().split(b'\\0')[0].decode())";
    let parameters = json!({"service": SERVICE, "id": id});
    let call = json!({"method": "io.reuseportd.Acknowledge", "parameters": parameters});
    let output = Command::new("python3")
        .args(["-c", SCRIPT])
        .arg(socket)
        .arg(call.to_string())
        .stdin(Stdio::null())
        .output()?;
    let answer = last_line(&String::from_utf8(output.stdout)?)?;
    ensure!(answer["parameters"]["yours"].is_boolean(), "{answer}");
    Ok(answer["parameters"]["yours"] == true)
}

/// The daemon is stopped in the middle of it, and the next one goes on.
pub(crate) fn daemon_stopped() -> Result<()> {
    daemon_ends(Stage::restart_daemon)
}

/// The daemon is killed in the middle of it, and the next one goes on.
pub(crate) fn daemon_killed() -> Result<()> {
    daemon_ends(Stage::replace_killed_daemon)
}

/// What a receiver has got by then is its own; the rest goes to those that receive again.
fn daemon_ends(end: fn(&mut Stage) -> Result<()>) -> Result<()> {
    const WAITING: u32 = 40;
    const ACKNOWLEDGED: usize = 5;
    let mut case = Case::prepare()?;
    let mut receiving = case.receive()?;
    let server = case.old;
    let stands = server.stop()?;
    let clients = Waiting::for_instance(&case.stage, "v1", WAITING)?;
    let migration = Held::begin(&case.stage, SERVICE, "--to t --drain handoff")?;
    let mut given = receiving.take(ROOM)?;
    for given in given.drain(..ACKNOWLEDGED) {
        serve(&receiving, given)?;
    }
    given.append(&mut receiving.take(ACKNOWLEDGED)?);
    let left = WAITING - 16 - 5;
    until_queued(&case.stage, SERVICE, "v1", left)?;
    end(&mut case.stage)?;
    drop(migration);
    receiving.end()?;

    let mut receiving = Receiving::start(&case.stage.home().socket())?;
    for given in given {
        serve(&receiving, given)?;
    }
    for _ in 0..left {
        let given = receiving.take_one()?;
        serve(&receiving, given)?;
    }
    until("the migration ends", || {
        Ok(service_status(&case.stage, SERVICE)?.migration.is_none())
    })?;
    until_state(&case.stage, SERVICE, "v1", "retired")?;
    let answered = clients.answered()?;
    ensure!(answered == BTreeMap::from([(tag("t"), WAITING)]));
    stands.go_on()?;
    server.ends_without_work()
}

/// Rolled back in the middle of it: what was handed over stays with its receiver, and what was not
/// is the old server's again.
pub(crate) fn rolled_back() -> Result<()> {
    const WAITING: u32 = 20;
    const LATER: u32 = 3;
    let case = Case::prepare()?;
    let mut receiving = case.receive()?;
    let stands = case.old.stop()?;
    let early = Waiting::for_instance(&case.stage, "v1", WAITING)?;
    let migration = case.begin()?;
    let given = receiving.take(ROOM)?;
    let left = WAITING - 16;
    until_queued(&case.stage, SERVICE, "v1", left)?;
    Ctl::of(case.stage.home())?.done(&format!("rollback {SERVICE}"))?;
    let result = migration.ends("rolled_back", 5)?;
    ensure!(result.handed_off == 0, "{result:?}");
    ensure!(result.left_behind == u64::from(WAITING), "{result:?}");
    // There is room at the receiver again, and nothing more for it.
    for given in given {
        serve(&receiving, given)?;
    }
    let late = Waiting::beside(&case.stage, "v1", left, LATER)?;
    stands.go_on()?;
    let expected = BTreeMap::from([(tag("t"), 16), (tag("v1"), left)]);
    ensure!(early.answered()? == expected);
    ensure!(late.answered()? == BTreeMap::from([(tag("v1"), LATER)]));
    ensure!(case.old.server.exit()?.accepted == u64::from(left + LATER));
    Ok(())
}

/// The service is removed: who receives for it is told.
pub(crate) fn service_removed() -> Result<()> {
    let case = Case::prepare()?;
    let receiving = case.receive()?;
    Ctl::of(case.stage.home())?.done(&format!("service remove {SERVICE}"))?;
    let end = receiving.end()?.unwrap_or_default();
    ensure!(end["parameters"]["reason"] == "unknown-service", "{end}");
    Ok(())
}
