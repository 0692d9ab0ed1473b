//! `RLIMIT_NOFILE` of a running daemon.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::{AsFd, OwnedFd},
};

use anyhow::{Context, Result, bail, ensure};
use reuseport_daemon::{
    api::{
        client::ClientError,
        wire::{Changed, Doctor, Failure, Migrate, Release, ServiceFilter, ServiceRef},
    },
    lab::{daemon::DaemonError, fixture::Fixture, world::World},
};
use reuseport_tests::{
    control,
    held::{Held, Stopped},
    holdings::Holdings,
    receiving::until_receivers,
    scarce::Scarce,
    stage::{SERVICE, Stage, any_v4, tag, v4},
    traces::Traces,
    wait::until,
    waiting::Waiting,
};
use serde_json::{Value, json};

use super::{super::handoff::receiving, gentle_load, none_lost};

/// The service that is added and removed.
const MORE: &str = "more";

/// As many descriptors as are more than anything here takes.
const PLENTY: usize = 60;

/// With none left, one, two and so on until there are enough for everything: whatever is asked is done
/// or refused by name, what is refused leaves no trace, and clients of the service notice nothing.
pub(crate) fn one_by_one() -> Result<()> {
    let stage = Stage::set(World::loopback()?, &[any_v4()])?;
    let _v1 = stage.instance(&v4("v1"))?;
    let _v2 = stage.instance(&v4("v2"))?;
    let v3 = stage.server(&v4("v3"))?;
    let load = gentle_load(&stage)?;
    for verb in Verb::ALL {
        verb.ask(&stage, &v3)?.ok().context("not refused")?;
        verb.undo(&stage)?;
    }
    Traces::of(&stage)?;
    let before = Holdings::of(&stage)?;
    let mut refused = Vec::new();
    while refused.last() != Some(&0) {
        let left = refused.len();
        ensure!(left < PLENTY, "refused, by what was left: {refused:?}");
        let mut count = 0;
        for verb in Verb::ALL {
            let context = || format!("{verb:?} with {left} left");
            let refused = scarcely(&stage, verb, &v3, left).with_context(context)?;
            count += usize::from(refused);
        }
        refused.push(count);
    }
    let _ = writeln!(io::stderr(), "refused, by what was left: {refused:?}");
    ensure!(refused[0] == Verb::ALL.len(), "{refused:?}");
    ensure!(!stage.daemon().log().contains("panicked"));
    before.unchanged(&stage)?;
    none_lost(load)
}

/// Asks with so many descriptors left; whether that was too few.
fn scarcely(stage: &Stage, verb: Verb, server: &Fixture, left: usize) -> Result<bool> {
    let before = Holdings::of(stage)?;
    let scarce = Scarce::descriptors(stage, left)?;
    let answer = verb.ask(stage, server)?;
    drop(scarce);
    match answer {
        Ok(()) => verb.undo(stage)?,
        Err(failure) => {
            let said = failure.reason();
            let named = said.message.contains("(os error 24)") || said.reason == "descriptors-lost";
            ensure!(named, "{failure:?}");
            let unchanged = before.unchanged(stage);
            unchanged.with_context(|| said.message.clone())?;
            return Ok(true);
        }
    }
    Ok(false)
}

/// Clients that come one after the other while there is none left are told so, each of them, and the
/// log says it once; a client that stays is served on.
pub(crate) fn turned_away() -> Result<()> {
    const CLIENTS: usize = 50;
    let stage = Stage::set(World::loopback()?, &[any_v4()])?;
    let before = Traces::of(&stage)?;
    let socket = stage.home().socket();
    let status = control::call("Status", &json!({}));
    for times in 1..=2 {
        let scarce = Scarce::descriptors(&stage, 0)?;
        for _ in 0..CLIENTS {
            let answer = control::ask(&socket, &status, &[])?.context("an answer")?;
            ensure!(answer["parameters"]["reason"] == "short", "{answer}");
        }
        let said = stage.daemon().log().matches("are turned away").count();
        ensure!(said == times, "said {said} times");
        drop(scarce);
        Traces::of(&stage)?.same_as(&before)?;
    }
    Ok(())
}

/// The drain by handoff begins, and then there is no descriptor for another connection: it goes on when
/// there is one, and every connection has been answered once.
pub(crate) fn handoff() -> Result<()> {
    /// More than a receiver may be behind with.
    const WAITING: u32 = 24;
    let stage = Stage::set(World::loopback()?, &[any_v4()])?;
    let old = stage.instance(&v4("v1"))?;
    let new = stage.instance(&receiving(&stage, v4("v2")))?;
    until_receivers(&stage, "v2", 1)?;
    let before = Holdings::of(&stage)?;
    let hangs = Stopped::stop(&old)?;
    let waiting = Waiting::for_instance(&stage, "v1", WAITING)?;
    let behind = Stopped::stop(&new)?;
    let migration = Held::begin(&stage, SERVICE, "--to v2 --drain handoff")?;
    until("it has been given what it may have", || {
        let queued = stage.status()?.instances;
        let listeners = queued.iter().flat_map(|it| &it.listeners);
        let queued: u32 = listeners.filter_map(|it| it.accept_queue).sum();
        Ok(queued == WAITING - 16)
    })?;
    let scarce = Scarce::descriptors(&stage, 0)?;
    behind.go_on()?;
    let failed = "cannot look after a migration";
    until("none can be taken", || {
        Ok(stage.daemon().log().contains(failed))
    })?;
    drop(scarce);
    let result = migration.ends("done", 0)?;
    ensure!(result.handed_off == u64::from(WAITING), "{result:?}");
    ensure!(waiting.answered()?.get(&tag("v2")) == Some(&WAITING));
    hangs.go_on()?;
    // The receiver acknowledges over a connection that stays.
    let after = Holdings {
        descriptors: before.descriptors + 1,
        ..before
    };
    after.not_exceeded(&stage)
}

/// Everything that can be asked.
#[derive(Clone, Copy, Debug)]
enum Verb {
    Status,
    Doctor,
    Add,
    Register,
    Pass,
    Migrate,
}

impl Verb {
    const ALL: [Self; 6] = [
        Self::Status,
        Self::Doctor,
        Self::Add,
        Self::Register,
        Self::Pass,
        Self::Migrate,
    ];

    /// Asks, and wants an answer.
    fn ask(self, stage: &Stage, server: &Fixture) -> Result<Result<(), Failure>> {
        let daemon = stage.daemon();
        match self {
            Self::Status => answered(daemon.status()),
            Self::Doctor => answered(daemon.call::<_, Doctor>("Doctor", &ServiceFilter::default())),
            Self::Add => answered(daemon.add_service(MORE, &["127.0.0.1:7778".to_owned()])),
            Self::Register => answered(daemon.register(SERVICE, server.pid(), "v3")),
            Self::Pass => pass(stage),
            Self::Migrate => {
                let parameters = Migrate {
                    service: SERVICE.to_owned(),
                    to: Some("v2".to_owned()),
                    // What has begun is gone on with for so long without any.
                    drain_timeout_ms: Some(200),
                    ..Migrate::default()
                };
                match daemon.migrate(&parameters, |_| {}) {
                    Ok(result) => {
                        let ends = ["done", "timed_out"].contains(&result.outcome.as_str());
                        ensure!(ends, "{result:?}");
                        Ok(Ok(()))
                    }
                    Err(DaemonError::Client(error)) => answered::<()>(Err(error)),
                    Err(error) => Err(error.into()),
                }
            }
        }
    }

    /// Takes back what it has done, with descriptors again.
    fn undo(self, stage: &Stage) -> Result<()> {
        let daemon = stage.daemon();
        match self {
            Self::Status | Self::Doctor | Self::Pass => {}
            Self::Add => {
                let service = MORE.to_owned();
                let _: Changed = daemon.call("RemoveService", &ServiceRef { service })?;
            }
            Self::Register => {
                let (service, label) = (SERVICE.to_owned(), "v3".to_owned());
                let _: Changed = daemon.call("Release", &Release { service, label })?;
            }
            Self::Migrate => {
                let parameters = Migrate {
                    service: SERVICE.to_owned(),
                    to: Some("v1".to_owned()),
                    ..Migrate::default()
                };
                stage.migrate(&parameters, || {})?;
            }
        }
        Ok(())
    }
}

/// Registers descriptors that are no sockets, which is refused for that where they all arrive.
fn pass(stage: &Stage) -> Result<Result<(), Failure>> {
    let null: OwnedFd = File::open("/dev/null")?.into();
    let register = control::call("Register", &json!({"service": SERVICE}));
    let answer = control::ask(&stage.home().socket(), &register, &[null.as_fd(); 5])?;
    let Value::Object(mut answer) = answer.context("an answer")? else {
        bail!("no object");
    };
    let reason = answer.remove("parameters").context("parameters")?;
    if reason["reason"] == "not-a-socket" {
        return Ok(Ok(()));
    }
    Ok(Err(Failure::Failed(serde_json::from_value(reason)?)))
}

/// What was answered; an error where nothing was.
fn answered<T>(answer: Result<T, ClientError>) -> Result<Result<(), Failure>> {
    match answer {
        Ok(_) => Ok(Ok(())),
        Err(ClientError::Failure(failure)) => Ok(Err(failure)),
        Err(error) => Err(error.into()),
    }
}
