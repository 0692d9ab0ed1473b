//! One parking listener.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use tokio::sync::mpsc;
use tracing::warn;

use super::Task;
use crate::{
    daemon::driver::Event,
    domain::{Address, ServiceName, SocketCookie},
    sys::{readiness, socket},
};

/// The pause between the first parked connection and the look at why it was parked. Where the process
/// that served is ending, its end is known by then, and there is nothing to look for.
const PAUSE: Duration = Duration::from_millis(100);

/// A parking listener. It is closed when this is dropped, whoever has a duplicate of it.
#[derive(Debug)]
pub(in crate::daemon) struct ParkingListener {
    socket: OwnedFd,
    /// Which socket it is.
    pub(super) cookie: SocketCookie,
    /// Where it listens.
    pub(super) address: Address,
    /// Waits for a connection.
    watch: Option<Task>,
}

impl ParkingListener {
    pub(super) fn new(socket: OwnedFd, cookie: SocketCookie, address: Address) -> Self {
        Self {
            socket,
            cookie,
            address,
            watch: None,
        }
    }

    /// The same, which reports the first connection that is parked.
    pub(super) fn watch(
        mut self,
        service: &ServiceName,
        group: usize,
        events: &mpsc::UnboundedSender<Event>,
    ) -> Self {
        let event = Event::Parked {
            service: service.clone(),
            group,
            cookie: self.cookie,
        };
        let events = events.clone();
        match self.socket.try_clone().and_then(readiness::readable) {
            Ok(socket) => {
                self.watch = Some(Task::start(async move {
                    // An error means that the runtime ends.
                    if socket.readable().await.is_ok() {
                        tokio::time::sleep(PAUSE).await;
                        let _ = events.send(event);
                    }
                }));
            }
            // It parks all the same. Only an instance that closes its listeners and lives on goes
            // unnoticed.
            Err(error) => warn!(%service, %error, "cannot watch a parking listener"),
        }
        self
    }

    /// Reports nothing any more.
    pub(super) fn unwatched(mut self) -> Self {
        self.watch = None;
        self
    }
}

impl AsFd for ParkingListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for ParkingListener {
    fn drop(&mut self) {
        // The watch has a duplicate, which the runtime closes when it gets to it.
        if let Err(error) = socket::shutdown(self.socket.as_fd())
            && error.kind() != io::ErrorKind::NotConnected
        {
            warn!(%error, "cannot shut a parking listener down");
        }
    }
}
