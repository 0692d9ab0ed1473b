//! A reuseportd of the lab's own: in a namespace, with a directory for its socket and its bpffs, and
//! taken away without a trace.

use std::{
    fmt::Debug,
    fs::File,
    io,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use rustix::{
    mount::{UnmountFlags, unmount},
    process::Signal,
};
use serde::{Serialize, de::DeserializeOwned};
use tempfile::TempDir;
use thiserror::Error;
use tokio::runtime::Runtime;

use super::{
    process::{Process, ProcessError},
    service_manager::ServiceManager,
};
use crate::{
    api::{
        client::{Client, ClientError},
        wire::{
            AddService, Changed, Migrate, MigrationReply, MigrationResult, Progress, Register,
            Registered, ServiceFilter, ServiceStatus, Status,
        },
    },
    sys::netns::Netns,
};

/// How long the daemon may take to start and to stop.
const DEADLINE: Duration = Duration::from_secs(20);

/// A daemon that cannot be started, or does not do its part.
#[derive(Debug, Error)]
pub enum DaemonError {
    /// Its directory.
    #[error("a directory for the daemon")]
    Directory(#[source] io::Error),
    /// Its service manager.
    #[error("a service manager for the daemon")]
    ServiceManager(#[source] io::Error),
    /// Its process.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// It does not say that it is ready.
    #[error("the daemon does not get ready; its log: {log}")]
    NotReady {
        /// What it logged.
        log: String,
        /// What came instead.
        source: io::Error,
    },
    /// It ended otherwise than by being told to.
    #[error("the daemon ended with {status}; its log: {log}")]
    Failed {
        /// How.
        status: std::process::ExitStatus,
        /// What it logged.
        log: String,
    },
    /// It said no, or nothing.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A migration's replies ended without a result.
    #[error("a migration without a result")]
    NoResult,
}

/// The places of a daemon. They outlive its process, so that another can take up where it left.
#[derive(Debug)]
pub struct Home {
    // Before its directory.
    manager: ServiceManager,
    directory: TempDir,
    program: PathBuf,
    configured: bool,
    /// How many daemons have been started.
    started: AtomicU32,
}

/// A running daemon. It is killed when dropped.
#[derive(Debug)]
pub struct Daemon {
    process: Process,
    socket: PathBuf,
    log: PathBuf,
    runtime: Runtime,
}

impl Home {
    /// A home for daemons that run `program`.
    ///
    /// # Errors
    ///
    /// [`DaemonError::Directory`]
    pub fn new(program: &Path) -> Result<Self, DaemonError> {
        let directory = tempfile::Builder::new()
            .prefix("reuseportd-lab-")
            .tempdir()
            .map_err(DaemonError::Directory)?;
        let manager =
            ServiceManager::start(directory.path()).map_err(DaemonError::ServiceManager)?;
        Ok(Self {
            manager,
            directory,
            program: program.to_owned(),
            configured: false,
            started: AtomicU32::new(0),
        })
    }

    /// The same, with a configuration for each of them.
    ///
    /// # Errors
    ///
    /// [`DaemonError::Directory`]
    pub fn configured(mut self, text: &str) -> Result<Self, DaemonError> {
        std::fs::write(self.configuration(), text).map_err(DaemonError::Directory)?;
        self.configured = true;
        Ok(self)
    }

    /// Starts a daemon in a namespace and waits until it says that it is ready.
    ///
    /// # Errors
    ///
    /// [`DaemonError`]
    pub fn start(&self, netns: &Netns) -> Result<Daemon, DaemonError> {
        self.start_with(netns, |_| {})
    }

    /// The same, with changes to its command line and environment.
    ///
    /// # Errors
    ///
    /// [`DaemonError`]
    pub fn start_with(
        &self,
        netns: &Netns,
        change: impl FnOnce(&mut Command),
    ) -> Result<Daemon, DaemonError> {
        let log = self.log_of(self.started.fetch_add(1, Ordering::Relaxed));
        let command = self.manager.command(&self.program);
        let mut command = command.map_err(DaemonError::ServiceManager)?;
        command
            .arg("--socket")
            .arg(self.socket())
            .arg("--bpffs")
            .arg(self.bpffs())
            .env_remove("JOURNAL_STREAM");
        if self.configured {
            command.arg("--config").arg(self.configuration());
        }
        change(&mut command);
        command.stderr(File::create(&log).map_err(DaemonError::Directory)?);
        let process = Process::start(netns, command)?;
        if let Err(source) = self.manager.wait_until_ready(DEADLINE) {
            let log = read(&log);
            return Err(DaemonError::NotReady { log, source });
        }
        Ok(Daemon {
            process,
            socket: self.socket(),
            log,
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(DaemonError::Directory)?,
        })
    }

    /// What all of its daemons have logged so far, one after the other.
    #[must_use]
    pub fn logs(&self) -> String {
        let started = self.started.load(Ordering::Relaxed);
        (0..started).map(|it| read(&self.log_of(it))).collect()
    }

    fn log_of(&self, number: u32) -> PathBuf {
        self.directory.path().join(format!("log.{number}"))
    }

    fn configuration(&self) -> PathBuf {
        self.directory.path().join("reuseportd.toml")
    }

    /// Who starts its daemons, and keeps what they have kept.
    #[must_use]
    pub fn manager(&self) -> &ServiceManager {
        &self.manager
    }

    /// Its control socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("control")
    }

    /// Its bpffs, which the daemon mounts.
    #[must_use]
    pub fn bpffs(&self) -> PathBuf {
        self.directory.path().join("bpf")
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // Absent where no daemon has mounted it.
        let _ = unmount(self.bpffs(), UnmountFlags::DETACH);
    }
}

impl Daemon {
    /// Its pid.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// What it has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        read(&self.log)
    }

    /// Calls a method of `io.reuseportd`.
    ///
    /// # Errors
    ///
    /// [`ClientError`]
    pub fn call<P, R>(&self, method: &str, parameters: &P) -> Result<R, ClientError>
    where
        P: Serialize + Debug,
        R: DeserializeOwned + Debug,
    {
        self.runtime.block_on(async {
            let mut client = Client::connect(&self.socket).await?;
            client.call(method, parameters, Vec::new()).await
        })
    }

    /// Adds a service of root's.
    ///
    /// # Errors
    ///
    /// [`ClientError`]
    pub fn add_service(&self, name: &str, listen: &[String]) -> Result<Changed, ClientError> {
        let parameters = AddService {
            name: name.to_owned(),
            listen: listen.to_vec(),
            ..AddService::default()
        };
        self.call("AddService", &parameters)
    }

    /// Registers a process.
    ///
    /// # Errors
    ///
    /// [`ClientError`]
    pub fn register(
        &self,
        service: &str,
        pid: u32,
        label: &str,
    ) -> Result<Registered, ClientError> {
        let parameters = Register {
            service: service.to_owned(),
            pid: Some(pid),
            label: Some(label.to_owned()),
            ..Register::default()
        };
        self.call("Register", &parameters)
    }

    /// Migrates a service, and tells each step as it is told.
    ///
    /// # Errors
    ///
    /// [`DaemonError`]
    pub fn migrate(
        &self,
        parameters: &Migrate,
        mut told: impl FnMut(&Progress),
    ) -> Result<MigrationResult, DaemonError> {
        self.runtime.block_on(async {
            let mut client = Client::connect(&self.socket).await?;
            let mut replies = client.stream("Migrate", parameters).await?;
            while let Some(reply) = replies.next().await? {
                let MigrationReply { progress, result } = reply;
                if let Some(progress) = progress {
                    told(&progress);
                }
                if let Some(result) = result {
                    return Ok(result);
                }
            }
            Err(DaemonError::NoResult)
        })
    }

    /// The status of every service.
    ///
    /// # Errors
    ///
    /// [`ClientError`]
    pub fn status(&self) -> Result<Vec<ServiceStatus>, ClientError> {
        let status: Status = self.call("Status", &ServiceFilter::default())?;
        Ok(status.services)
    }

    /// Tells it to stop, and waits until it has.
    ///
    /// # Errors
    ///
    /// [`DaemonError::Failed`] where it does not end well.
    pub fn stop(self) -> Result<(), DaemonError> {
        self.process.signal(Signal::TERM)?;
        let status = self.process.finish(DEADLINE)?.status;
        if status.success() {
            return Ok(());
        }
        let log = read(&self.log);
        Err(DaemonError::Failed { status, log })
    }

    /// Kills it on the spot.
    ///
    /// # Errors
    ///
    /// [`ProcessError`]
    pub fn kill(self) -> Result<(), ProcessError> {
        self.process.signal(Signal::KILL)?;
        self.process.finish(DEADLINE)?;
        Ok(())
    }
}

/// For a message to a person; what cannot be read says so.
fn read(log: &Path) -> String {
    std::fs::read_to_string(log).unwrap_or_else(|error| error.to_string())
}
