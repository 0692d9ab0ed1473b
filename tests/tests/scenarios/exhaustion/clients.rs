//! Clients that are too many, say half of something, or do not listen.

use std::{
    fs::File,
    io::{self, ErrorKind, Write as _},
    ops::RangeInclusive,
    os::{fd::AsFd, unix::net::UnixStream},
    path::Path,
};

use anyhow::{Context, Result, ensure};
use reuseport_daemon::{
    lab::world::World,
    sys::{limits, unix_socket},
};
use reuseport_tests::{
    control,
    holdings::Holdings,
    kill_points::{Denial, Trace},
    stage::{DEADLINE, SERVICE, Stage, any_v4, v4},
    traces::Traces,
    wait::until,
};
use serde_json::json;

use super::{gentle_load, none_lost};

/// A thousand that ask and stay, and a hundred more than there are places for: each is answered, as many
/// as it takes that have asked nothing for a while give their place up and are told why, and when all
/// have gone there is nothing left of them.
pub(crate) fn a_thousand() -> Result<()> {
    const THOUSAND: usize = 1000;
    const PLACES: usize = 1024;
    const MORE: usize = 100;
    limits::raise_descriptors()?;
    let stage = Stage::set(World::loopback()?, &[any_v4()])?;
    let _v1 = stage.instance(&v4("v1"))?;
    let load = gentle_load(&stage)?;
    let socket = stage.home().socket();
    Traces::of(&stage)?;
    let mut held = None;
    for _ in 0..2 {
        let mut clients = Vec::new();
        for _ in 0..THOUSAND {
            clients.push(asking(&socket)?);
        }
        for client in &mut clients {
            is_answered(client)?;
        }
        let mut late = Vec::new();
        for _ in THOUSAND..PLACES + MORE {
            late.push(asking(&socket)?);
        }
        for client in &mut late {
            is_answered(client)?;
        }
        let mut gone = 0;
        for client in clients.iter_mut().chain(&mut late) {
            gone += usize::from(is_sent_away(client)?);
        }
        ensure!(gone >= MORE, "{gone} have given their place up");
        drop((clients, late));
        let now = Holdings::of(&stage)?;
        let before = *held.get_or_insert(now);
        before.unchanged(&stage)?;
        before.not_exceeded(&stage)?;
    }
    none_lost(load)
}

/// A client is denied what it takes to serve it, or to turn it away and close its connection, from each
/// call on: those that come later are served, and nothing is left open.
pub(crate) fn denied_client() -> Result<()> {
    const CLIENTS: usize = 4;
    /// Calls in a row: what one client takes, and then what it takes to send it away.
    const COUNTS: RangeInclusive<usize> = 1..=3;
    let stage = Stage::set(World::loopback()?, &[any_v4()])?;
    let socket = stage.home().socket();
    let before = Traces::of(&stage)?;
    for count in COUNTS {
        for call in 0.. {
            let trace = Trace::deny(stage.daemon(), Denial { call, count })?;
            // They have asked before they are let in, and are served or are not.
            let clients = (0..CLIENTS).map(|_| asking(&socket));
            for mut client in clients.collect::<Result<Vec<_>>>()? {
                let _ = control::read_message(&mut client)?;
            }
            let seen = trace.end(|| {
                let _ = stage.daemon().status();
            })?;
            if !seen.struck {
                ensure!(call > 3, "only {call} calls that take something");
                break;
            }
            let unchanged = before.come_back(|| Traces::of(&stage));
            unchanged.with_context(|| format!("{count} denied, {:?}", &seen.effects[call..]))?;
        }
    }
    Ok(())
}

/// Clients that send half a call, with descriptors, and stay: others are served, and these are sent away
/// with all that they have brought.
pub(crate) fn half_a_call() -> Result<()> {
    const CLIENTS: usize = 100;
    limits::raise_descriptors()?;
    let stage = Stage::set(World::loopback()?, &[any_v4()])?;
    let _v1 = stage.instance(&v4("v1"))?;
    let load = gentle_load(&stage)?;
    Traces::of(&stage)?;
    let before = Holdings::of(&stage)?;
    let register = control::call("Register", &json!({"service": SERVICE}));
    let null = File::open("/dev/null")?;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let client = connect(&stage.home().socket())?;
        unix_socket::send(
            &client,
            &register[..register.len() / 2],
            &[null.as_fd(); 20],
        )?;
        clients.push(client);
    }
    until("others are served beside them", || {
        stage.status()?;
        Ok(Holdings::of(&stage)?.descriptors > before.descriptors + CLIENTS * 20)
    })?;
    for client in &mut clients {
        let told = control::read_message(client)?.context("an answer")?;
        ensure!(told["parameters"]["reason"] == "stalled", "{told}");
    }
    before.unchanged(&stage)?;
    none_lost(load)
}

/// Clients that ask and ask and read no answer: others are served, memory is bounded, and these are sent
/// away. A migration whose caller does not read comes to its end.
pub(crate) fn clogged() -> Result<()> {
    const CLIENTS: usize = 20;
    /// What the daemon may use for them, in KiB: their calls and one answer each, and what the
    /// allocator keeps.
    const MEMORY: u64 = 8 << 10;
    let stage = Stage::set(World::loopback()?, &[any_v4()])?;
    let _v1 = stage.instance(&v4("v1"))?;
    let _v2 = stage.instance(&v4("v2"))?;
    let load = gentle_load(&stage)?;
    Traces::of(&stage)?;
    let before = Holdings::of(&stage)?;
    let socket = stage.home().socket();
    let status = control::call("Status", &json!({}));
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = connect(&socket)?;
        client.set_nonblocking(true)?;
        clog(&mut client, &status)?;
        clients.push(client);
    }
    let migrate = json!({
        "method": "io.reuseportd.Migrate",
        "parameters": {"service": SERVICE, "to": "v2"},
        "more": true,
    });
    let mut caller = connect(&socket)?;
    caller.write_all(&control::message(&migrate))?;
    until("v2 serves", || {
        let service = stage.status()?;
        let mut instances = service.instances.iter();
        let serves = instances.any(|it| it.label == "v2" && it.state == "serving");
        Ok(serves && service.migration.is_none())
    })?;
    let now = Holdings::of(&stage)?;
    ensure!(
        now.resident <= before.resident + MEMORY,
        "{before:?} became {now:?}"
    );
    drop(caller);
    before.unchanged(&stage)?;
    none_lost(load)
}

/// Sends calls until no more are taken.
fn clog(client: &mut UnixStream, call: &[u8]) -> Result<()> {
    let calls = call.repeat(100);
    loop {
        match client.write(&calls) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error).context("send calls"),
        }
    }
}

fn asking(socket: &Path) -> Result<UnixStream> {
    let mut client = connect(socket)?;
    client.write_all(&control::call("Status", &json!({})))?;
    Ok(client)
}

fn is_answered(client: &mut UnixStream) -> Result<()> {
    let answer = control::read_message(client)?.context("an answer")?;
    ensure!(answer["parameters"]["services"].is_array(), "{answer}");
    Ok(())
}

/// Whether a client has been told that others wait for its place.
fn is_sent_away(client: &mut UnixStream) -> Result<bool> {
    client.set_nonblocking(true)?;
    match control::read_message(client) {
        Ok(told) => {
            let told = told.context("an answer")?;
            ensure!(told["parameters"]["reason"] == "idle", "{told}");
            Ok(true)
        }
        Err(error) => match error.downcast_ref::<io::Error>() {
            Some(none) if none.kind() == ErrorKind::WouldBlock => Ok(false),
            Some(_) | None => Err(error),
        },
    }
}

fn connect(socket: &Path) -> Result<UnixStream> {
    let client = UnixStream::connect(socket).context("connect")?;
    client.set_read_timeout(Some(DEADLINE))?;
    Ok(client)
}
