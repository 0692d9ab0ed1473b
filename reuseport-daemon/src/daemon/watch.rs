//! Noticing that a process has ended.

use std::{io, os::fd::OwnedFd, time::Duration};

use thiserror::Error;
use tokio::{io::unix::AsyncFd, sync::mpsc, task::AbortHandle};
use tracing::warn;

use crate::{
    chain::chain,
    domain::{ProcessId, ServiceName},
    sys::{
        process::{Process, ProcessError, unless_ended},
        readiness,
    },
};

/// The pause after a process could not be watched.
const PAUSE: Duration = Duration::from_millis(500);

/// An instance's process has ended.
#[derive(Clone, Debug)]
pub(super) struct Exit {
    /// The service.
    pub service: ServiceName,
    /// The process, which tells an instance from a later one of the same number.
    pub process: ProcessId,
}

/// Where exits are reported.
pub(super) type Exits = mpsc::UnboundedSender<Exit>;

/// Waits for a process to end, until it is dropped.
#[derive(Debug)]
pub(super) struct Watch(AbortHandle);

/// A process that cannot be watched at the moment, as where descriptors have run out. It has not
/// ended for that: its listeners would be taken out of their slots while they serve.
#[derive(Debug, Error)]
enum WatchError {
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error("cannot wait for the process")]
    Register(#[from] io::Error),
}

impl Watch {
    /// Watches `exit`'s process, and reports it to `exits` once.
    pub(super) fn start(exit: Exit, exits: Exits) -> Self {
        let task = tokio::spawn(async move {
            ended(exit.process).await;
            let _ = exits.send(exit);
        });
        Self(task.abort_handle())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Waits until a process has ended.
async fn ended(process: ProcessId) {
    loop {
        match pidfd(process) {
            // A pidfd becomes readable when its process ends. An error would come from epoll
            // itself; then it is looked at anew.
            Ok(Some(pidfd)) if pidfd.readable().await.is_ok() => return,
            Ok(Some(_)) => {}
            Ok(None) => return,
            Err(error) => warn!(%process, error = chain(&error), "not watched; trying again"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The process as the runtime watches it; none where it has ended.
fn pidfd(process: ProcessId) -> Result<Option<AsyncFd<OwnedFd>>, WatchError> {
    match unless_ended(Process::reopen(process))? {
        Some(process) => Ok(Some(readiness::readable(process.into())?)),
        None => Ok(None),
    }
}
