//! A migration that stays in its drain for as long as a test wants.

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use reuseport_daemon::{
    api::wire::{InstanceStatus, MigrationResult, ServiceStatus},
    lab::{fixture::Fixture, process::Process},
};
use rustix::process::Signal;
use serde_json::Value;

use crate::{
    ctl::{Ctl, last_line},
    stage::{DEADLINE, Stage},
    wait::until,
};

/// A server in the middle of whatever it did: it accepts nothing and answers nothing until it goes
/// on. It does when this is dropped.
#[derive(Debug)]
pub struct Stopped<'a>(&'a Fixture);

impl<'a> Stopped<'a> {
    /// Stops a server, and waits until every thread of it stands.
    ///
    /// # Errors
    ///
    /// Where it cannot be stopped.
    pub fn stop(server: &'a Fixture) -> Result<Self> {
        let stopped = Self(server);
        stand_still(server)?;
        Ok(stopped)
    }

    /// Lets it go on.
    ///
    /// # Errors
    ///
    /// Where it is gone.
    pub fn go_on(self) -> Result<()> {
        Ok(self.0.signal(Signal::CONT)?)
    }
}

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        // It fails where the server has ended, which nothing can be done about here.
        let _ = self.0.signal(Signal::CONT);
    }
}

/// Stops a server until it gets a SIGCONT, and waits until every thread of it stands.
///
/// # Errors
///
/// Where it cannot be stopped.
pub fn stand_still(server: &Fixture) -> Result<()> {
    server.signal(Signal::STOP)?;
    until("every thread stands", || all_threads_stand(server.pid()))
}

/// Whether every thread of a process is stopped.
///
/// # Errors
///
/// Where it is gone.
pub fn all_threads_stand(pid: u32) -> Result<bool> {
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let stat = fs::read_to_string(thread?.path().join("stat"))?;
        // The name before it is in parentheses, and may have some of its own.
        let (_, rest) = stat.rsplit_once(") ").context("a thread's state")?;
        if !rest.starts_with('T') {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A `reuseportctl migrate` that waits for an old server which does not accept.
#[derive(Debug)]
pub struct Held {
    process: Process,
}

impl Held {
    /// Begins `reuseportctl migrate SERVICE ARGUMENTS`, with all the time that it may need unless the
    /// arguments say otherwise, and waits until it drains. The caller has seen to it that it does not
    /// end: the old server is stopped, with connections in its queue.
    ///
    /// # Errors
    ///
    /// Where it is not under way in good time.
    pub fn begin(stage: &Stage, service: &str, arguments: &str) -> Result<Self> {
        const LIMIT: &str = "--drain-timeout";
        let limit = if arguments.contains(LIMIT) {
            String::new()
        } else {
            format!(" {LIMIT} 1h")
        };
        let line = format!("migrate {service} {arguments}{limit}");
        let mut process = Ctl::of(stage.home())?.start(stage, &line)?;
        // It is told of every reading, whether it has begun the migration or goes on with one.
        loop {
            let told = process.next_line("tell that it drains", DEADLINE)?;
            let told: Value = serde_json::from_str(&told).with_context(|| told.clone())?;
            ensure!(told["progress"].is_object(), "{told}");
            if told["progress"]["phase"] == "draining" {
                return Ok(Self { process });
            }
        }
    }

    /// Waits for its end: the exit code, and the last line that it printed.
    ///
    /// # Errors
    ///
    /// Where it does not end.
    pub fn end(self) -> Result<(i32, Value)> {
        let ended = self.process.finish(DEADLINE)?;
        let code = ended.status.code().context("it was killed")?;
        Ok((code, last_line(&ended.output)?))
    }

    /// Waits for its end, which must be that one.
    ///
    /// # Errors
    ///
    /// Where it ends otherwise.
    pub fn ends(self, outcome: &str, code: i32) -> Result<MigrationResult> {
        let (got, result) = self.end()?;
        let result: MigrationResult =
            serde_json::from_value(result.clone()).with_context(|| format!("{got}: {result}"))?;
        ensure!(
            result.outcome == outcome && got == code,
            "{got}: {result:?}"
        );
        Ok(result)
    }
}

/// The status of a service.
///
/// # Errors
///
/// Where the daemon does not tell, or does not know it.
pub fn service_status(stage: &Stage, service: &str) -> Result<ServiceStatus> {
    let services = stage.daemon().status()?;
    let found = services.into_iter().find(|it| it.name == service);
    found.with_context(|| format!("there is no service {service}"))
}

/// The status of an instance, if it has one.
///
/// # Errors
///
/// As [`service_status`].
pub fn instance_status(
    stage: &Stage,
    service: &str,
    label: &str,
) -> Result<Option<InstanceStatus>> {
    let instances = service_status(stage, service)?.instances;
    Ok(instances.into_iter().find(|it| it.label == label))
}

/// Waits until an instance is in that state.
///
/// # Errors
///
/// Where it does not get there.
pub fn until_state(stage: &Stage, service: &str, label: &str, word: &str) -> Result<()> {
    until(&format!("{label} is {word}"), || {
        let instance = instance_status(stage, service, label)?;
        Ok(instance.is_some_and(|it| it.state == word))
    })
}

/// Waits until that many connections wait in an instance's accept queues.
///
/// # Errors
///
/// Where they do not come.
pub fn until_queued(stage: &Stage, service: &str, label: &str, count: u32) -> Result<()> {
    until(&format!("{count} connections wait for {label}"), || {
        let instance = instance_status(stage, service, label)?;
        let listeners = instance.map(|it| it.listeners).unwrap_or_default();
        let queued: u32 = listeners.iter().filter_map(|it| it.accept_queue).sum();
        Ok(queued == count)
    })
}

/// A step time of a client that waits for a server which stands: longer than any test lets it stand.
pub const PATIENCE: Duration = Duration::from_secs(60);
