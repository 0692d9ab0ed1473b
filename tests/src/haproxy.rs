//! haproxy: a master and its worker, as an operator runs them.

use std::{fs, os::unix::net::UnixDatagram, process::Command};

use anyhow::{Context, Result};
use reuseport_daemon::{
    domain::Address,
    lab::{process::Process, wire::Tag},
    sys::{netns::Netns, process::descendants},
};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::stage::DEADLINE;

/// A running haproxy, killed when it is dropped.
#[derive(Debug)]
pub struct Haproxy {
    master: Process,
    address: Address,
    directory: TempDir,
    notices: UnixDatagram,
}

impl Haproxy {
    /// Starts one in a namespace and waits until it listens.
    ///
    /// # Errors
    ///
    /// Where it does not.
    pub fn start(netns: &Netns, label: Tag, address: &Address) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("haproxy-lab-").tempdir()?;
        let file = directory.path().join("haproxy.cfg");
        fs::write(&file, configuration(label, address))?;
        let notices = UnixDatagram::bind(directory.path().join("notify"))?;
        notices.set_read_timeout(Some(DEADLINE))?;
        let mut command = Command::new("haproxy");
        command
            .args(["-Ws", "-q", "-f"])
            .arg(file)
            .env("NOTIFY_SOCKET", directory.path().join("notify"));
        let haproxy = Self {
            master: Process::start(netns, command)?,
            address: address.clone(),
            directory,
            notices,
        };
        haproxy.ready()?;
        Ok(haproxy)
    }

    /// Lets it start a new worker with another label, which takes the listeners over, and waits until it
    /// serves. The old one ends when its connections have.
    ///
    /// # Errors
    ///
    /// Where it does not get there.
    pub fn reload(&mut self, label: Tag) -> Result<()> {
        let file = self.directory.path().join("haproxy.cfg");
        fs::write(file, configuration(label, &self.address))?;
        self.master.signal(Signal::USR2)?;
        self.ready()
    }

    /// Waits until the master says that it is ready: before, it takes no signal.
    fn ready(&self) -> Result<()> {
        let mut notice = [0; 1024];
        loop {
            let length = self
                .notices
                .recv(&mut notice)
                .context("haproxy is silent")?;
            let mut lines = notice[..length].split(|byte| *byte == b'\n');
            if lines.any(|line| line == b"READY=1") {
                return Ok(());
            }
        }
    }

    fn workers(&self) -> Result<Vec<u32>> {
        Ok(descendants(self.master.pid())?)
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        // While the master has not been waited for, a stopped one's children are nobody else's.
        if self.master.signal(Signal::STOP).is_ok() {
            for pid in self.workers().unwrap_or_default() {
                if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                    // It fails for one that has ended.
                    let _ = kill_process(pid, Signal::KILL);
                }
            }
        }
    }
}

/// What it is told to be. It answers by itself and closes then, as nginx does.
fn configuration(label: Tag, address: &Address) -> String {
    let socket = address.socket;
    format!(
        "global
    user www-data
    nbthread 2
    maxconn 8192
defaults
    mode http
    timeout client 1m
    timeout server 1m
    timeout connect 1m
frontend lab
    bind {socket} backlog 4096
    http-request return status 200 content-type text/plain lf-string \"%[path] {label}\"
"
    )
}
