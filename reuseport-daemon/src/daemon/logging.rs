//! Where the daemon's own words go, and those of its eBPF programs.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
};

use aya_log::EbpfLogger;
use rustix::fs::fstat;
use thiserror::Error;
use tracing::warn;
use tracing_subscriber::{
    EnvFilter, Registry,
    filter::ParseError,
    layer::SubscriberExt,
    util::{SubscriberInitExt, TryInitError},
};

use super::{driver::Driver, journal::Journal};
use crate::{
    chain::chain,
    steering::{GroupMaps, LogLevel, ServiceMaps, SteeringError},
    sys::readiness,
};

/// What is logged unless somebody says otherwise.
const DEFAULT_FILTER: &str = "info";

/// Logging could not be set up.
#[derive(Debug, Error)]
pub enum LoggingError {
    /// The filter makes no sense.
    #[error("{0:?} is not a log filter")]
    Filter(String, #[source] ParseError),
    /// There is a logger already.
    #[error(transparent)]
    Init(#[from] TryInitError),
}

/// Logs to the journal where the service manager has connected us to it, else to standard error.
pub(super) fn start(filter: Option<&str>) -> Result<(), LoggingError> {
    let filter = filter.unwrap_or(DEFAULT_FILTER);
    let filter = EnvFilter::try_new(filter)
        .map_err(|error| LoggingError::Filter(filter.to_owned(), error))?;
    let journal = is_journal(io::stderr().as_fd())
        .then(|| Journal::connect().ok())
        .flatten();
    let terminal = journal.is_none().then(|| {
        tracing_subscriber::fmt::layer()
            .with_writer(io::stderr)
            .with_target(false)
    });
    Registry::default()
        .with(filter)
        .with(journal)
        .with(terminal)
        .try_init()?;
    Ok(())
}

/// Whether the service manager has connected `output` to the journal. A process that was started
/// from such a service inherits the variable, and may write elsewhere: systemd.exec(5), under
/// `$JOURNAL_STREAM`, which has the device and the inode.
fn is_journal(output: BorrowedFd<'_>) -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    let Ok(stat) = fstat(output) else {
        return false;
    };
    stream == format!("{}:{}", stat.st_dev, stat.st_ino)
}

impl Driver {
    /// Passes on what a service's programs log, if they were loaded to log anything.
    pub(super) fn watch_log(&self, maps: &ServiceMaps) {
        if self.loader.log_level() == LogLevel::Off {
            return;
        }
        for group in maps.groups() {
            if let Err(error) = follow(group) {
                warn!(error = chain(&error), "cannot read what a program logs");
            }
        }
    }
}

/// A program's log cannot be read.
#[derive(Debug, Error)]
enum FollowError {
    #[error(transparent)]
    Steering(#[from] SteeringError),
    #[error(transparent)]
    Log(#[from] aya_log::Error),
    #[error("cannot watch the ring buffer")]
    Watch(#[from] io::Error),
}

/// Passes on what a program logs until the daemon ends.
fn follow(group: &GroupMaps) -> Result<(), FollowError> {
    let mut log = EbpfLogger::init_from_id(group.program_id()?)?;
    let ready = readiness::readable(log.as_fd().try_clone_to_owned()?)?;
    tokio::spawn(async move {
        while let Ok(mut guard) = ready.readable().await {
            log.flush();
            guard.clear_ready();
        }
    });
    Ok(())
}
