//! Parking listeners in the service manager's keeping. What it keeps outlives the daemon, with all
//! that waits in it, and the next daemon is given it when it starts (`left.rs`).

use std::os::fd::BorrowedFd;

use tracing::warn;

use crate::sys::service_manager::{ServiceManager, Stored};

/// Where parking listeners are kept.
#[derive(Debug)]
pub(in crate::daemon) struct Store {
    manager: Option<ServiceManager>,
}

/// Whether they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::daemon) enum Keeping {
    /// They are.
    Kept,
    /// Nobody has started this daemon who would.
    Nobody,
    /// The service manager keeps no more.
    Refused,
    /// The service manager is busy with something else.
    Unanswered,
    /// The service manager cannot be told.
    Failed(String),
}

impl Store {
    /// Those of the service manager, if there is one.
    pub(in crate::daemon) fn new(manager: Option<ServiceManager>) -> Self {
        Self { manager }
    }

    /// Has a listener kept.
    pub(super) fn keep(&self, name: &str, listener: BorrowedFd<'_>) -> Keeping {
        self.ask(|manager| manager.store(name, listener))
    }

    /// Whether one more would be kept.
    pub(in crate::daemon) fn has_room(&self) -> Keeping {
        self.ask(ServiceManager::has_room)
    }

    /// Has it kept no longer. That it may be so for a moment still makes no difference: a listener is
    /// shut down first, for whoever holds it.
    pub(super) fn forget(&self, name: &str) {
        let Some(manager) = &self.manager else {
            return;
        };
        if let Err(error) = manager.remove(name) {
            warn!(name, %error, "the service manager keeps a listener that has been closed");
        }
    }

    /// Tells the service manager how the daemon is, such as `READY=1`.
    pub(in crate::daemon) fn tell(&self, state: &str) {
        let Some(manager) = &self.manager else {
            return;
        };
        if let Err(error) = manager.tell(state) {
            warn!(%error, "cannot notify the service manager");
        }
    }

    /// Waits until the service manager has heard everything: what a process says that is gone by the
    /// time that it is read may be taken for nobody's (`sd_notify_barrier(3)`).
    pub(in crate::daemon) fn until_heard(&self) {
        let Some(manager) = &self.manager else {
            return;
        };
        match manager.barrier() {
            Ok(true) => {}
            Ok(false) => warn!("the service manager has not read everything in time"),
            Err(error) => warn!(%error, "cannot wait for the service manager"),
        }
    }

    fn ask(&self, what: impl FnOnce(&ServiceManager) -> std::io::Result<Stored>) -> Keeping {
        let Some(manager) = &self.manager else {
            return Keeping::Nobody;
        };
        match what(manager) {
            Ok(Stored::Kept) => Keeping::Kept,
            Ok(Stored::Refused) => Keeping::Refused,
            Ok(Stored::Unanswered) => Keeping::Unanswered,
            Err(error) => Keeping::Failed(error.to_string()),
        }
    }
}

impl Keeping {
    /// Whether it may be another time, though nothing else has changed.
    pub(super) fn may_change(&self) -> bool {
        match self {
            Self::Kept | Self::Nobody | Self::Refused => false,
            Self::Unanswered | Self::Failed(_) => true,
        }
    }

    /// Why they are not, if they are not.
    pub(in crate::daemon) fn trouble(&self) -> Option<String> {
        match self {
            Self::Kept => None,
            Self::Nobody => {
                Some("there is no service manager: NOTIFY_SOCKET is not set".to_owned())
            }
            Self::Refused => Some("the service manager keeps no more descriptors".to_owned()),
            Self::Unanswered => Some("the service manager has not answered in time".to_owned()),
            Self::Failed(why) => Some(format!("the service manager cannot be told: {why}")),
        }
    }
}
