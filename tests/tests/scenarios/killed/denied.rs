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
};
use reuseport_tests::{
    kill_points::{Denial, Seen, Trace},
    stage::SERVICE,
    traces::Traces,
};

use super::{check::Expected, operation::Operation, reference, scene::Scene};

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

/// Denies the calls of one operation, one after the other.
pub(crate) fn at_every_call(operation: Operation) -> Result<()> {
    let started = Instant::now();
    let (expected, _) = reference(operation).context("nothing is denied")?;
    let tally = Tally::default();
    thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| while deny_until_done(operation, &expected, &tally) {});
        }
    });
    let failures = tally
        .failures
        .into_inner()
        .map_err(|_| anyhow!("a panic"))?;
    let (refused, endured) = (tally.refused.into_inner(), tally.endured.into_inner());
    let _ = writeln!(
        io::stderr(),
        "{}: {refused} refused, {endured} endured, {} failures, {:.1} s",
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
fn deny_until_done(operation: Operation, expected: &Expected, tally: &Tally) -> bool {
    let mut last = String::from("nothing");
    let done = Scene::set(operation).and_then(|mut scene| {
        let before = scene.traces()?;
        loop {
            let call = tally.next.fetch_add(1, Ordering::Relaxed);
            let (seen, answer) = scene.perform_denied(Denial {
                call,
                from_there_on: false,
            })?;
            if seen.struck {
                last = format!("call {call}, {}", seen.effects[call]);
            }
            match answer {
                Ok(()) => {
                    scene.settle()?;
                    scene.check(expected, None)?;
                    return Ok(seen.struck);
                }
                Err(error) => {
                    ensure!(seen.struck, "refused for nothing: {error:?}");
                    tally.refused.fetch_add(1, Ordering::Relaxed);
                    let said = said(&error)?;
                    is_named(said, &seen)?;
                    let done = scene.looks_on() || ALL_BUT_DONE.contains(&said.reason.as_str());
                    if done {
                        scene.try_again().context("a second try")?;
                        scene.settle()?;
                        scene.check(expected, None)?;
                        return Ok(true);
                    }
                    let unchanged = scene.traces()?.same_as(&before);
                    unchanged.with_context(|| said.message.clone())?;
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

/// What the daemon has answered.
fn said(error: &anyhow::Error) -> Result<&Reason> {
    let error = match error.downcast_ref() {
        Some(DaemonError::Client(error)) => Some(error),
        Some(_) | None => error.downcast_ref::<ClientError>(),
    };
    match error {
        Some(ClientError::Failure(failure)) => Ok(failure.reason()),
        Some(_) | None => bail!("not answered: {error:?}"),
    }
}

/// It names what there was none of.
fn is_named(said: &Reason, seen: &Seen) -> Result<()> {
    let shortage = seen.shortage.map(io::Error::from_raw_os_error);
    let shortage = shortage.context("a call that was denied")?.to_string();
    ensure!(said.message.contains(&shortage), "not named: {said:?}");
    Ok(())
}

impl Scene {
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
        if !matches!(self.operation, Operation::Migrate { .. }) {
            return self.operation.perform(&self.stage, &self.old, &self.new);
        }
        let parameters = Migrate {
            service: SERVICE.to_owned(),
            to: Some("v2".to_owned()),
            ..Migrate::default()
        };
        let result = daemon.migrate(&parameters, |_| {})?;
        let there = ["done", "unchanged"].contains(&result.outcome.as_str());
        ensure!(there, "{result:?}");
        Ok(())
    }

    fn traces(&self) -> Result<Traces> {
        let held = usize::from(self.operation == Operation::RollBack);
        Traces::beside(&self.stage, held)
    }
}
