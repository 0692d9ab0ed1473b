//! What the parts of a service tell the driver, now or after a pause.

use std::time::Duration;

use tokio::sync::mpsc;

use crate::{
    domain::{ServiceName, SocketCookie, UnitName},
    sys::cgroup::Cgroup,
};

/// How long to wait before trying again what the kernel refused.
pub(super) const RETRY: Duration = Duration::from_millis(500);

/// Something has happened to a service, and is for the driver to see to.
#[derive(Debug)]
pub(super) enum Event {
    /// A connection waits in a parking listener.
    Parked {
        /// The service.
        service: ServiceName,
        /// Its group.
        group: usize,
        /// The parking listener.
        cookie: SocketCookie,
    },
    /// Nobody has served a group for as long as connections may wait.
    ParkTimeout {
        /// The service.
        service: ServiceName,
        /// Its group.
        group: usize,
        /// When that began.
        since_ms: u64,
    },
    /// A service that could not park, or have its parking listeners kept, is to try again.
    ParkAgain(ServiceName),
    /// Connections that waited have been moved to whoever serves.
    Unparked(ServiceName),
    /// A unit may have a listener, or is to be looked at again.
    Unit(UnitEvent),
    /// What a service could not undo is to be undone.
    Owed(ServiceName),
}

/// Something has to do with a unit.
#[derive(Clone, Debug)]
pub(super) struct UnitEvent {
    /// The service that has it in its pattern.
    pub service: ServiceName,
    /// The unit.
    pub unit: UnitName,
    /// Where its processes are.
    pub group: Cgroup,
    /// What is the matter.
    pub cause: Cause,
}

/// What is the matter with a unit.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cause {
    /// It has been started, or has lost a process.
    Stirred,
    /// A pause is over. It began with the event of that number.
    Again(u64),
}

/// Sends `what` when it may be tried again.
pub(super) fn again_later<T: Send + 'static>(to: &mpsc::UnboundedSender<T>, what: T) {
    again_after(RETRY, to, what);
}

/// Sends `what` after a pause.
pub(super) fn again_after<T: Send + 'static>(
    pause: Duration,
    to: &mpsc::UnboundedSender<T>,
    what: T,
) {
    let to = to.clone();
    tokio::spawn(async move {
        tokio::time::sleep(pause).await;
        // An error means that the daemon is stopping.
        let _ = to.send(what);
    });
}
