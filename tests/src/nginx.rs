//! nginx: a master and its workers, as an operator runs them.
//!
//! With `reuseport` nginx opens a listener per worker and address. The master opens them all, and
//! every worker inherits them all and polls its own: a listener closes when the last of them closes
//! it, not when its worker ends.

use std::{collections::BTreeSet, fs, process::Command};

use anyhow::{Context, Result, ensure};
use reuseport_daemon::{
    domain::Address,
    lab::{process::Process, wire::Tag},
    sys::{netns::Netns, process as held, process::descendants, sock_diag::SockDiag},
};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, waitid};
use tempfile::TempDir;

use crate::{held::all_threads_stand, stage::DEADLINE, wait};

/// What an nginx is to be.
#[derive(Clone, Debug)]
pub struct Options {
    /// What it answers with.
    pub label: Tag,
    /// Where it listens.
    pub listen: Vec<Address>,
    /// How many workers it has, each with a listener per address.
    pub workers: usize,
}

/// A running nginx. The master and all its workers are killed when it is dropped.
#[derive(Debug)]
pub struct Nginx {
    options: Options,
    /// There until it has been waited for.
    process: Option<Process>,
    /// Workers that were there when their master was killed.
    orphans: Vec<held::Process>,
    prefix: TempDir,
}

impl Nginx {
    /// Starts one in a namespace and waits until it listens.
    ///
    /// # Errors
    ///
    /// Where it does not; its log is part of the error.
    pub fn start(netns: &Netns, options: &Options) -> Result<Self> {
        let prefix = tempfile::Builder::new().prefix("nginx-lab-").tempdir()?;
        fs::write(prefix.path().join("nginx.conf"), configuration(options))?;
        let mut command = Command::new("nginx");
        command.arg("-p").arg(prefix.path());
        command.args(["-c", "nginx.conf", "-e", "error.log"]);
        let nginx = Self {
            options: options.clone(),
            process: Some(Process::start(netns, command)?),
            orphans: Vec::new(),
            prefix,
        };
        nginx
            .wait_until_listening(netns)
            .with_context(|| format!("nginx {}: {}", options.label, nginx.log()))?;
        Ok(nginx)
    }

    /// The master's pid.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process().pid()
    }

    /// The workers' pids, those that are exiting included.
    ///
    /// # Errors
    ///
    /// Where `/proc` does not tell.
    pub fn workers(&self) -> Result<BTreeSet<u32>> {
        Ok(descendants(self.pid())?.into_iter().collect())
    }

    /// Sends the master a signal: QUIT lets it end as soon as every connection has its answer, TERM
    /// at once.
    ///
    /// # Errors
    ///
    /// Where it is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(self.process().signal(signal)?)
    }

    /// Lets it read its configuration anew, with that many workers, and waits until none of the
    /// present workers is left.
    ///
    /// # Errors
    ///
    /// Where it does not get there.
    pub fn reload(&mut self, workers: usize) -> Result<()> {
        self.options.workers = workers;
        let file = self.prefix.path().join("nginx.conf");
        fs::write(file, configuration(&self.options))?;
        let before = self.workers()?;
        self.signal(Signal::HUP)?;
        wait::until("other workers", || {
            let now = self.workers()?;
            Ok(now.len() == workers && now.is_disjoint(&before))
        })
        .with_context(|| self.log())
    }

    /// Stops it in the middle of whatever it does, and waits until master and workers stand.
    ///
    /// # Errors
    ///
    /// Where one cannot be stopped.
    pub fn stand_still(&self) -> Result<()> {
        for pid in self.workers()?.into_iter().chain([self.pid()]) {
            held::Process::open(pid)?.signal("STOP".parse()?)?;
            wait::until("it stands", || all_threads_stand(pid))?;
        }
        Ok(())
    }

    /// Kills the master alone. Its workers go on, until this is dropped.
    ///
    /// # Errors
    ///
    /// Where that cannot be done.
    pub fn kill_master(&mut self) -> Result<()> {
        self.hold_workers()?;
        let master = held::Process::open(self.pid())?;
        self.signal(Signal::KILL)?;
        wait::until("the master's end", || Ok(master.has_exited()))
    }

    /// Waits for it to end by itself, which it does after its last worker.
    ///
    /// # Errors
    ///
    /// Where it does not, or not well.
    pub fn exited(mut self) -> Result<()> {
        let Some(process) = self.process.take() else {
            return Ok(());
        };
        let pid = process.pid();
        // This reads the output to its end, which is when every worker has closed it too.
        let status = process.finish(DEADLINE)?.status;
        ensure!(status.success(), "nginx {pid}: {status}: {}", self.log());
        Ok(())
    }

    /// What it has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        // For a message to a person; what cannot be read says so.
        fs::read_to_string(self.prefix.path().join("error.log"))
            .unwrap_or_else(|error| error.to_string())
    }

    fn process(&self) -> &Process {
        self.process.as_ref().expect("it is there until waited for")
    }

    fn wait_until_listening(&self, netns: &Netns) -> Result<()> {
        let master = held::Process::open(self.pid())?;
        let diag = netns.enter(SockDiag::open)??;
        let expected = self.options.workers * self.options.listen.len();
        wait::until("listeners", || {
            ensure!(!master.has_exited(), "it has exited");
            let ours: BTreeSet<u32> = master
                .open_sockets()?
                .into_iter()
                .map(|(_, inode)| inode)
                .collect();
            let listening = diag
                .listeners(None)?
                .into_iter()
                .filter(|row| ours.contains(&row.inode));
            let addresses: Vec<_> = listening.map(|row| row.address).collect();
            let all_known = addresses.iter().all(|it| self.options.listen.contains(it));
            ensure!(all_known, "it listens on {addresses:?}");
            Ok(addresses.len() == expected)
        })
    }

    /// Takes hold of every worker. The master is stopped first, so that it starts no other
    /// meanwhile; it is about to be killed.
    fn hold_workers(&mut self) -> Result<()> {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
        let pid = pid.context("a pid")?;
        self.signal(Signal::STOP)?;
        let ended_or_stopped =
            WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(pid), ended_or_stopped)?;
        // A stopped master waits for nobody, so these pids are nobody else's.
        for worker in descendants(self.pid())? {
            match held::Process::open(worker) {
                Ok(worker) => self.orphans.push(worker),
                Err(held::ProcessError::NoProcess(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        if self.process.is_some() {
            // What fails here has ended; the master is killed and waited for by its own handle.
            let _ = self.hold_workers();
            self.process = None;
        }
        if let Ok(kill) = "KILL".parse() {
            for worker in self.orphans.drain(..) {
                let _ = worker.signal(kill);
            }
        }
    }
}

/// What it is told to be. Sessions are meant to last as long as a test.
fn configuration(options: &Options) -> String {
    let Options {
        label,
        listen,
        workers,
    } = options;
    let listen: String = listen.iter().map(listen_directive).collect();
    format!(
        r#"daemon off;
user www-data;
worker_processes {workers};
pid nginx.pid;
error_log error.log notice;
events {{
    worker_connections 16384;
}}
http {{
    access_log off;
    keepalive_timeout 1h;
    keepalive_requests 1000000;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    server {{
{listen}        default_type text/plain;
        return 200 "$uri {label}";
    }}
}}
"#
    )
}

fn listen_directive(address: &Address) -> String {
    let v6 = match (address.socket.is_ipv6(), address.v6only) {
        (false, _) => "",
        (true, true) => " ipv6only=on",
        (true, false) => " ipv6only=off",
    };
    let socket = address.socket;
    format!("        listen {socket}{v6} reuseport backlog=4096;\n")
}
