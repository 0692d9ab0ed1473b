//! haproxy: a master and its worker, as an operator runs them.

use std::{fs, process::Command};

use anyhow::{Result, ensure};
use reuseport_daemon::{
    domain::Address,
    lab::{process::Process, wire::Tag},
    sys::{netns::Netns, process::descendants, sock_diag::SockDiag},
};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::wait;

/// A running haproxy, killed when it is dropped.
#[derive(Debug)]
pub struct Haproxy {
    master: Process,
    address: Address,
    directory: TempDir,
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
        let mut command = Command::new("haproxy");
        command.args(["-W", "-q", "-f"]).arg(file);
        let haproxy = Self {
            master: Process::start(netns, command)?,
            address: address.clone(),
            directory,
        };
        let diag = netns.enter(SockDiag::open)??;
        wait::until("HAProxy listens", || {
            let rows = diag.listeners(Some(address.socket.port()))?;
            Ok(!rows.is_empty() && !haproxy.workers()?.is_empty())
        })?;
        Ok(haproxy)
    }

    /// Lets it start a new worker with another label, which takes the listeners over, and waits until
    /// the old one has ended.
    ///
    /// # Errors
    ///
    /// Where it does not get there.
    pub fn reload(&mut self, label: Tag) -> Result<()> {
        let file = self.directory.path().join("haproxy.cfg");
        fs::write(file, configuration(label, &self.address))?;
        let before = self.workers()?;
        self.master.signal(Signal::USR2)?;
        wait::until("another worker", || {
            let now = self.workers()?;
            ensure!(now.len() <= before.len() + 1, "{now:?}");
            Ok(!now.is_empty() && now.iter().all(|pid| !before.contains(pid)))
        })
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
