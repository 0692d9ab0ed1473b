//! What an operator is told of parking, and what of the daemon's own ends.

use std::{
    io::{ErrorKind, Read},
    net::TcpStream,
    os::fd::AsFd,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use reuseport_daemon::{
    api::{
        client::ClientError,
        wire::{AddService, Failure},
    },
    domain::{Setting, Value},
    lab::{
        server::{SocketOption, Stop},
        world::World,
    },
    sys::{listener_settings, process::Process, sock_diag::SockDiag},
};
use reuseport_tests::{
    ctl::Ctl,
    sockets::{Made, tcp},
    stage::{DEADLINE, PORT, SERVICE, Stage, any_v4, v4},
    traces::Traces,
    wait::until,
};

use super::{
    begin, churn,
    end::{End, check_closed},
    gap, park, park_as, parked, until_parked,
};

/// <https://elixir.bootlin.com/linux/v6.18/source/include/uapi/linux/tcp.h>
const TCP_MAXSEG: i32 = 2;
const TCP_SAVE_SYN: i32 = 27;
const IPPROTO_TCP: i32 = 6;

/// Long enough to be seen waiting, and short enough to wait for.
const TIMEOUT_MS: u64 = 1500;

/// What cannot park is refused, and leaves no trace.
pub(crate) fn refused() -> Result<()> {
    let stage = Stage::bare(World::loopback()?)?;
    let ctl = Ctl::of(stage.home())?;
    let _alone = tcp(stage.world.server(), stage.world.v4(PORT), Made::Alone)?;
    let before = Traces::of(&stage)?;
    let here = stage.world.v4(PORT);
    for (arguments, code, reason) in [
        (
            format!("--listen {here} --park"),
            3,
            "parking-address-in-use",
        ),
        (
            "--listen 192.0.2.1:80 --park".to_owned(),
            3,
            "parking-address",
        ),
        (
            format!("--listen {here},device=none0 --park"),
            3,
            "parking-address",
        ),
        (
            "--listen 127.0.0.1:1 --park --park-timeout 0s".to_owned(),
            3,
            "park",
        ),
    ] {
        let ran = ctl.run(&format!("--json service add {SERVICE} {arguments}"))?;
        let error = &ran.result()?["error"];
        ensure!(
            ran.code == code && error["reason"] == reason,
            "{arguments}: {ran:?}"
        );
        let unchanged = Traces::of(&stage)?.same_as(&before);
        unchanged.with_context(|| arguments.clone())?;
    }
    let ran = ctl.run("service add x --listen 127.0.0.1:1 --park-timeout 1s")?;
    ensure!(ran.code == 2, "{ran:?}");
    Ok(())
}

/// When the time is up, those who wait are refused, and so is everybody who comes then. An instance
/// that registers is served, and the service parks again.
pub(crate) fn timed_out() -> Result<()> {
    let parameters = AddService {
        listen: vec![any_v4()],
        park_timeout_ms: Some(TIMEOUT_MS),
        ..AddService::default()
    };
    let stage = park_as(World::loopback()?, parameters)?;
    let ctl = Ctl::of(stage.home())?;
    let first = stage.instance(&v4("v1"))?;
    let killed = Instant::now();
    drop(first);
    let target = stage.world.v4(PORT);
    let mut waiting = stage
        .world
        .client()
        .enter(|| TcpStream::connect(target))??;
    waiting.set_read_timeout(Some(DEADLINE))?;
    let ended = waiting.read(&mut [0]);
    let waited = killed.elapsed();
    ensure!(
        ended.is_err_and(|it| it.kind() == ErrorKind::ConnectionReset),
        "the connection was not reset"
    );
    let limit = Duration::from_millis(TIMEOUT_MS);
    ensure!(
        waited >= limit && waited < limit + Duration::from_millis(1400),
        "reset after {waited:?}"
    );
    let refused = stage.world.client().enter(|| TcpStream::connect(target))?;
    ensure!(
        refused.is_err_and(|it| it.kind() == ErrorKind::ConnectionRefused),
        "nobody was to listen"
    );
    let parking = parked(&stage)?;
    ensure!(!parking.open, "{parking:?}");
    let told = ctl.done("status")?;
    ensure!(told.contains("refused, nobody has served for"), "{told}");
    let examined = ctl.run(&format!("doctor {SERVICE}"))?.out;
    ensure!(examined.contains("they are refused"), "{examined}");
    let log = stage.daemon().log();
    ensure!(
        log.contains("1 connections that waited are refused"),
        "{log}"
    );

    let second = stage.instance(&v4("v2"))?;
    answered(&stage)?;
    let parking = parked(&stage)?;
    ensure!(parking.open && parking.unserved_ms.is_none(), "{parking:?}");
    // What it takes to start one is not to be taken from the time that they wait.
    let third = stage.server(&v4("v3"))?;
    drop(second);
    let load = begin(&stage, vec![target], 1)?;
    until_parked(&stage, 1)?;
    stage.daemon().register(SERVICE, third.pid(), "v3")?;
    ensure!(load.advances_by(1, DEADLINE), "an answer");
    load.stop()?.connections.check_complete()?;
    Ok(())
}

/// Whoever asks is answered.
fn answered(stage: &Stage) -> Result<()> {
    let load = begin(stage, vec![stage.world.v4(PORT)], 1)?;
    ensure!(load.advances_by(1, DEADLINE), "an answer");
    Ok(load.stop()?.connections.check_complete()?)
}

/// The daemon stops and starts again: what it knows of parking is on record, and the next end of a
/// server is waited out as ever. Its own listener is never an instance's, nor a stranger.
pub(crate) fn daemon_restarted() -> Result<()> {
    let parameters = AddService {
        listen: vec![any_v4()],
        park_timeout_ms: Some(60_000),
        ..AddService::default()
    };
    let mut stage = park_as(World::loopback()?, parameters)?;
    let mut serving = stage.instance(&v4("v1"))?;
    let load = churn(&stage, vec![stage.world.v4(PORT)], 8)?;
    let mut ends = Vec::new();
    for number in 2..=4 {
        stage.restart_daemon()?;
        let parking = parked(&stage)?;
        ensure!(parking.open && parking.timeout_ms == 60_000, "{parking:?}");
        let begun = Instant::now();
        serving.stop_listening(Stop::Close)?;
        ends.push(End::since(begun));
        serving.exit()?;
        gap(&stage, 8)?;
        let registered = stage
            .daemon()
            .register(SERVICE, stage.daemon().pid(), "ours");
        let Err(ClientError::Failure(Failure::Refused(reason))) = registered else {
            bail!("{registered:?}");
        };
        ensure!(reason.reason == "own-process", "{reason:?}");
        serving = stage.instance(&v4(&format!("v{number}")))?;
        ensure!(load.advances_by(200, DEADLINE), "a load that goes on");
    }
    check_closed(&load.stop()?.connections, &ends)?;
    let ctl = Ctl::of(stage.home())?;
    until("no stranger in the group", || {
        let examined = ctl.run(&format!("doctor {SERVICE}"))?.out;
        Ok(!examined.contains("nobody registered"))
    })
}

/// A daemon that stops while connections wait says what that costs, as they end with it.
pub(crate) fn daemon_stopped_meanwhile() -> Result<()> {
    let mut stage = park(World::loopback()?, &[any_v4()])?;
    let target = stage.world.v4(PORT);
    let mut waiting = stage
        .world
        .client()
        .enter(|| TcpStream::connect(target))??;
    until_parked(&stage, 1)?;
    stage.restart_daemon()?;
    let said = stage.home().logs();
    ensure!(
        said.contains("1 connections wait for an instance, and are lost"),
        "{said}"
    );
    waiting.set_read_timeout(Some(DEADLINE))?;
    let ended = waiting.read(&mut [0]);
    ensure!(
        ended.is_err_and(|it| it.kind() == ErrorKind::ConnectionReset),
        "no reset"
    );
    let parking = parked(&stage)?;
    ensure!(parking.open && parking.queued == 0, "{parking:?}");
    Ok(())
}

/// What the server's listener hands down to its connections, those that wait have too.
pub(crate) fn set_as_the_server_is() -> Result<()> {
    let stage = park(World::loopback()?, &[any_v4()])?;
    let mut options = v4("v1");
    options.set = vec![
        SocketOption::number(IPPROTO_TCP, TCP_SAVE_SYN, 1),
        SocketOption::number(IPPROTO_TCP, TCP_MAXSEG, 1000),
    ];
    let server = stage.instance(&options)?;
    drop(server);
    until("nobody serves", || {
        Ok(parked(&stage)?.unserved_ms.is_some())
    })?;
    let diag = stage.world.server().enter(SockDiag::open)??;
    let mut rows = Vec::new();
    until("the parking listener is the only one", || {
        rows = diag.listeners(Some(PORT))?;
        Ok(rows.len() == 1)
    })?;
    let process = Process::open(stage.daemon().pid())?;
    let mut sockets = process.open_sockets()?.into_iter();
    let found = sockets.find(|it| it.1 == rows[0].inode);
    let duplicate = process.descriptor(found.context("the parking listener")?.0)?;
    let settings = listener_settings::read(duplicate.as_fd());
    for (setting, expected) in [(Setting::TcpSaveSyn, 1), (Setting::TcpMaxseg, 1000)] {
        let found = settings.get(&setting);
        ensure!(
            found == Some(&Value::Number(expected)),
            "{setting}: {found:?}"
        );
    }
    Ok(())
}
