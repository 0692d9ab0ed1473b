//! Descriptors, memory, room and threads that the daemon asks for and does not get, at every call of
//! every operation that takes some. The operation says what it did not get and has changed nothing,
//! or has come to its end all the same; and when there is enough again it succeeds, as if nothing had
//! been.

use std::{
    io::{self, Write},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use reuseport_daemon::{
    api::{
        client::ClientError,
        wire::{Migrate, Reason},
    },
    lab::daemon::DaemonError,
    sys::migrate_req,
};
use reuseport_tests::{
    kill_points::{Denial, Seen, Trace},
    stage::SERVICE,
    traces::Traces,
    wait::until,
};

use super::{check::Expected, operation::Operation, reference, scene::Scene};

/// The operations whose calls are denied: each of them, and of the migrations those that do most.
pub(crate) const DENIED: [Operation; 11] = [
    Operation::Add,
    Operation::RegisterFirst,
    Operation::RegisterStandby,
    Operation::RegisterMore,
    Operation::RegisterFewer,
    Operation::Migrate {
        drain: "owner",
        retire: "shutdown",
    },
    Operation::Migrate {
        drain: "kernel",
        retire: "shutdown",
    },
    Operation::RollBack,
    Operation::Release,
    Operation::Remove,
    Operation::ServingEnds,
];

/// Worlds at a time.
const AT_A_TIME: usize = 6;

/// Reasons that are given where everything else has been done.
const ALL_BUT_DONE: [&str; 2] = ["not-retired", "pins-left"];

/// What came of all that was denied.
#[derive(Debug, Default)]
struct Tally {
    /// Which call is the next to be denied.
    next: AtomicUsize,
    refused: AtomicUsize,
    endured: AtomicUsize,
    failures: Mutex<Vec<anyhow::Error>>,
}

/// How many calls in a row, where even undoing is denied what it takes.
const FOR_A_WHILE: usize = 25;

/// Denies the calls of one operation, one after the other, and then so many that what was begun cannot
/// be undone at once either.
pub(crate) fn at_every_call(operation: Operation) -> Result<()> {
    let (expected, _) = reference(operation).context("nothing is denied")?;
    deny(operation, &expected, 1)?;
    match operation {
        Operation::RegisterFirst
        | Operation::RegisterStandby
        | Operation::RegisterMore
        | Operation::RegisterFewer
        | Operation::Release
        | Operation::Remove => deny(operation, &expected, FOR_A_WHILE),
        // What an addition leaves aside is cleared away by the next one, or the next start; the others
        // go on by themselves, and try again as often as it takes.
        Operation::Add
        | Operation::Migrate { .. }
        | Operation::RollBack
        | Operation::ServingEnds
        | Operation::AddParked
        | Operation::Park
        | Operation::Unpark
        | Operation::ParkTimeout
        | Operation::RemoveParked => Ok(()),
    }
}

fn deny(operation: Operation, expected: &Expected, count: usize) -> Result<()> {
    let started = Instant::now();
    let tally = Tally::default();
    thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| while deny_until_done(operation, expected, count, &tally) {});
        }
    });
    let failures = tally
        .failures
        .into_inner()
        .map_err(|_| anyhow!("a panic"))?;
    let (refused, endured) = (tally.refused.into_inner(), tally.endured.into_inner());
    let _ = writeln!(
        io::stderr(),
        "{}, {count} at a time: {refused} refused, {endured} endured, {} failures, {:.1} s",
        operation.name(),
        failures.len(),
        started.elapsed().as_secs_f32(),
    );
    let all: Vec<_> = failures.iter().map(|it| format!("{it:#}")).collect();
    ensure!(failures.is_empty(), "{}", all.join("\n"));
    ensure!(refused + endured > 0, "an operation that takes nothing");
    Ok(())
}

/// Lets an operation be refused again and again, until it is done for all that it is denied. False
/// when there is no more to deny.
fn deny_until_done(operation: Operation, expected: &Expected, count: usize, tally: &Tally) -> bool {
    let mut last = String::from("nothing");
    let done = Scene::set(operation).and_then(|mut scene| {
        let before = Traces::settled(|| scene.traces())?;
        loop {
            let call = tally.next.fetch_add(1, Ordering::Relaxed);
            let (seen, answer) = scene.perform_denied(Denial { call, count })?;
            if seen.struck {
                last = format!("call {call}, {}", seen.effects[call]);
            }
            match answer {
                Ok(()) => {
                    scene.come_to_rest()?;
                    scene.check(expected, None)?;
                    return Ok(seen.struck);
                }
                Err(error) => {
                    ensure!(seen.struck, "refused for nothing: {error:?}");
                    tally.refused.fetch_add(1, Ordering::Relaxed);
                    // A client that could be taken and not be watched is not heard.
                    let unheard = is_gone(&error) && seen.effects[call] == "epoll_ctl";
                    let reason = if unheard {
                        String::new()
                    } else {
                        named(&error, &seen)?.reason.clone()
                    };
                    if scene.looks_on() || ALL_BUT_DONE.contains(&reason.as_str()) {
                        scene.try_again().context("a second try")?;
                        scene.come_to_rest()?;
                        scene.check(expected, None)?;
                        return Ok(true);
                    }
                    let unchanged = before.come_back(|| scene.traces());
                    unchanged.with_context(|| format!("{error}"))?;
                }
            }
        }
    });
    match done {
        Ok(endured) => {
            tally.endured.fetch_add(endured.into(), Ordering::Relaxed);
            endured
        }
        Err(error) => {
            if let Ok(mut failures) = tally.failures.lock() {
                failures.push(error.context(format!("denied: {last}")));
            }
            true
        }
    }
}

fn client_error(error: &anyhow::Error) -> Option<&ClientError> {
    match error.downcast_ref() {
        Some(DaemonError::Client(error)) => Some(error),
        Some(_) | None => error.downcast_ref(),
    }
}

fn is_gone(error: &anyhow::Error) -> bool {
    matches!(client_error(error), Some(ClientError::Gone))
}

/// What the daemon has answered, which names what there was none of.
fn named<'a>(error: &'a anyhow::Error, seen: &Seen) -> Result<&'a Reason> {
    let Some(ClientError::Failure(failure)) = client_error(error) else {
        bail!("not answered: {error:?}");
    };
    let said = failure.reason();
    let mut shortages = seen.shortages.iter();
    let named = shortages.any(|it| {
        let shortage = io::Error::from_raw_os_error(*it).to_string();
        said.message.contains(&shortage)
    });
    ensure!(named, "not named: {said:?}");
    Ok(said)
}

impl Scene {
    /// Waits until nothing is under way and nothing is owed any more.
    fn come_to_rest(&mut self) -> Result<()> {
        self.settle()?;
        until("tcp_migrate_req is put back", || {
            let held = self.stage.world.server().enter(migrate_req::read)??;
            Ok(held != Some(true))
        })
    }

    /// Performs the operation while the kernel denies what it asks for.
    fn perform_denied(&self, denial: Denial) -> Result<(Seen, Result<()>)> {
        let daemon = self.stage.daemon();
        let trace = Trace::deny(daemon, denial)?;
        let answer = self.operation.perform(&self.stage, &self.old, &self.new);
        let seen = trace.end(|| {
            // What it answers is of no interest.
            let _ = daemon.status();
        })?;
        Ok((seen, answer))
    }

    /// Whether the operation asks for the status afterwards, which can be what is refused.
    fn looks_on(&self) -> bool {
        self.operation.ends_the_old() || self.operation.signals()
    }

    fn try_again(&self) -> Result<()> {
        let daemon = self.stage.daemon();
        let Operation::Migrate { drain, retire } = self.operation else {
            return self.operation.perform(&self.stage, &self.old, &self.new);
        };
        let parameters = Migrate {
            service: SERVICE.to_owned(),
            to: Some("v2".to_owned()),
            drain: Some(drain.to_owned()),
            retire: Some(retire.to_owned()),
            ..Migrate::default()
        };
        let result = daemon.migrate(&parameters, |_| {})?;
        let there = ["done", "unchanged"].contains(&result.outcome.as_str());
        ensure!(there, "{result:?}");
        Ok(())
    }

    fn traces(&self) -> Result<Traces> {
        let held = usize::from(self.operation == Operation::RollBack);
        let mut traces = Traces::beside(&self.stage, held)?;
        if held > 0 {
            // The drain asks for sockets all the time.
            traces
                .descriptors
                .retain(|it| !it.to_string_lossy().starts_with("socket:"));
        }
        Ok(traces)
    }
}
