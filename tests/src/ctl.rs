//! `reuseportctl`, as an operator runs it.

use std::{
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use reuseport_daemon::lab::{daemon::Home, process::Process};
use serde_json::Value;

use crate::stage::{Stage, program};

/// The command, and the daemon that it talks to.
#[derive(Clone, Debug)]
pub struct Ctl {
    program: PathBuf,
    socket: PathBuf,
    uid: Option<u32>,
}

/// What came of a command.
#[derive(Clone, Debug)]
pub struct Ran {
    /// Its exit code.
    pub code: i32,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

impl Ctl {
    /// Root's, for the daemon of that home.
    ///
    /// # Errors
    ///
    /// Where nobody said where the programs are.
    pub fn of(home: &Home) -> Result<Self> {
        Ok(Self {
            program: program("reuseportctl")?,
            socket: home.socket(),
            uid: None,
        })
    }

    /// The same, run by another user.
    #[must_use]
    pub fn run_by(&self, uid: u32) -> Self {
        Self {
            uid: Some(uid),
            ..self.clone()
        }
    }

    /// Runs it with these arguments, given in one line.
    ///
    /// # Errors
    ///
    /// Where it does not run, or a signal ends it.
    pub fn run(&self, arguments: &str) -> Result<Ran> {
        let output = self
            .command(arguments)
            .stdin(Stdio::null())
            .output()
            .context("run reuseportctl")?;
        Ok(Ran {
            code: output.status.code().context("it was killed")?,
            out: String::from_utf8(output.stdout)?,
            err: String::from_utf8(output.stderr)?,
        })
    }

    /// Runs it, and wants it to succeed.
    ///
    /// # Errors
    ///
    /// Where it does not.
    pub fn done(&self, arguments: &str) -> Result<String> {
        let ran = self.run(arguments)?;
        ensure!(ran.code == 0, "{arguments}: {ran:?}");
        Ok(ran.out)
    }

    /// Starts it with `--json`, for [`Process::finish`] to wait for.
    ///
    /// # Errors
    ///
    /// Where it does not start.
    pub fn start(&self, stage: &Stage, arguments: &str) -> Result<Process> {
        let command = self.command(&format!("--json {arguments}"));
        Ok(Process::start(stage.world.server(), command)?)
    }

    fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(&self.program);
        command
            .env("REUSEPORTD_SOCKET", &self.socket)
            .args(arguments.split_whitespace());
        if let Some(uid) = self.uid {
            command.uid(uid).gid(uid);
        }
        command
    }
}

impl Ran {
    /// The last line of what it printed with `--json`.
    ///
    /// # Errors
    ///
    /// Where there is none.
    pub fn result(&self) -> Result<Value> {
        last_line(&self.out)
    }
}

/// The last line of output, which `--json` makes the result or the error.
///
/// # Errors
///
/// Where there is none, or it is not JSON.
pub fn last_line(output: &str) -> Result<Value> {
    let last = output.lines().last().context("no output")?;
    serde_json::from_str(last).with_context(|| format!("not JSON: {last}"))
}
