//! Noticing that a process has ended.

use tokio::{sync::mpsc, task::AbortHandle};

use crate::{
    domain::{ProcessId, ServiceName},
    sys::{process::Process, readiness},
};

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
pub(super) struct Watch(Option<AbortHandle>);

impl Watch {
    /// Watches `exit`'s process, and reports it to `exits` once.
    pub(super) fn start(exit: Exit, exits: Exits) -> Self {
        // A pidfd becomes readable when its process ends; one that cannot be opened has ended.
        let process = Process::reopen(exit.process).ok();
        let pidfd = process.and_then(|it| readiness::readable(it.into()).ok());
        let Some(pidfd) = pidfd else {
            let _ = exits.send(exit);
            return Self(None);
        };
        let task = tokio::spawn(async move {
            // An error would come from epoll itself; the process counts as ended then, as it could
            // not be watched any more.
            let _ = pidfd.readable().await;
            let _ = exits.send(exit);
        });
        Self(Some(task.abort_handle()))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}
