//! A lab server in a process of its own.

use std::{ffi::OsString, path::PathBuf, process::Command, time::Duration};

use rustix::process::Signal;
use thiserror::Error;

use super::{
    process::{Process, ProcessError},
    server::{Counts, DONE, Options, READY, Stop},
};
use crate::sys::netns::Netns;

/// How long a server may take for anything.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// The program that runs [`server::serve`](super::server::serve) with its command line.
#[derive(Clone, Debug)]
pub struct Program {
    /// Where it is.
    pub path: PathBuf,
    /// What comes before the server's own options, such as a subcommand.
    pub arguments: Vec<OsString>,
}

/// A server that did not end as it should.
#[derive(Debug, Error)]
pub enum FixtureError {
    /// Its process did not do its part.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// It failed.
    #[error("the server {label} ended with {status}")]
    Failed {
        /// Which.
        label: String,
        /// How.
        status: std::process::ExitStatus,
    },
    /// What it printed at its end are no counts.
    #[error("the server {label} printed {output:?}")]
    Counts {
        /// Which.
        label: String,
        /// What it printed.
        output: String,
        /// Why those are none.
        source: serde_json::Error,
    },
}

/// A running server. It is killed when dropped.
#[derive(Debug)]
pub struct Fixture {
    label: String,
    process: Process,
}

impl Fixture {
    /// Starts a server in a namespace and waits until it listens.
    ///
    /// # Errors
    ///
    /// [`FixtureError::Process`].
    pub fn start(
        netns: &Netns,
        program: &Program,
        options: &Options,
    ) -> Result<Self, FixtureError> {
        let mut command = Command::new(&program.path);
        command.args(&program.arguments).args(options.arguments());
        let mut process = Process::start(netns, command)?;
        process.wait_for(READY, DEADLINE)?;
        Ok(Self {
            label: options.label.to_string(),
            process,
        })
    }

    /// Its pid.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Lets it start as many workers again as it began with, and waits until they listen.
    ///
    /// # Errors
    ///
    /// [`FixtureError::Process`].
    pub fn listen_more(&mut self) -> Result<(), FixtureError> {
        self.process.say("more")?;
        Ok(self.process.wait_for(DONE, DEADLINE)?)
    }

    /// Lets it close its listeners, and waits until it has.
    ///
    /// # Errors
    ///
    /// [`FixtureError::Process`].
    pub fn stop_listening(&mut self, stop: Stop) -> Result<(), FixtureError> {
        let command = match stop {
            Stop::Close => "close",
            Stop::DrainClose => "drain-close",
            Stop::Linger => return Ok(()),
        };
        self.process.say(command)?;
        Ok(self.process.wait_for(DONE, DEADLINE)?)
    }

    /// Sends it a signal.
    ///
    /// # Errors
    ///
    /// [`FixtureError::Process`].
    pub fn signal(&self, signal: Signal) -> Result<(), FixtureError> {
        Ok(self.process.signal(signal)?)
    }

    /// Lets it answer what it has accepted, end, and say what it did.
    ///
    /// # Errors
    ///
    /// Any [`FixtureError`].
    pub fn exit(self) -> Result<Counts, FixtureError> {
        let Self { label, process } = self;
        let ended = process.finish(DEADLINE)?;
        if !ended.status.success() {
            let status = ended.status;
            return Err(FixtureError::Failed { label, status });
        }
        serde_json::from_str(&ended.output).map_err(|source| FixtureError::Counts {
            label,
            output: ended.output,
            source,
        })
    }
}
