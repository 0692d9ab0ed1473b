//! One parking listener.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use tokio::sync::mpsc;
use tracing::warn;

use super::{
    name::name_of,
    store::{Keeping, Store},
};
use crate::{
    daemon::{event::Event, task::Task},
    domain::{Address, ServiceName, SocketCookie},
    sys::{packets, readiness, socket},
};

/// The pause between the first parked connection and the look at why it was parked. Where the process
/// that served is ending, its end is known by then, and there is nothing to look for.
const PAUSE: Duration = Duration::from_millis(100);

/// A parking listener. One that is dropped goes on listening where the service manager keeps it.
#[derive(Debug)]
pub(in crate::daemon) struct ParkingListener {
    socket: OwnedFd,
    /// Which socket it is.
    pub(super) cookie: SocketCookie,
    /// Where it listens.
    pub(super) address: Address,
    store: Arc<Store>,
    /// What it is called there.
    name: String,
    /// Whether it is kept there for sure.
    pub(super) kept: bool,
    /// Waits for a connection.
    watch: Option<Task>,
}

impl ParkingListener {
    pub(super) fn new(
        socket: OwnedFd,
        cookie: SocketCookie,
        address: Address,
        service: &ServiceName,
        store: &Arc<Store>,
    ) -> Self {
        Self {
            socket,
            cookie,
            address,
            store: Arc::clone(store),
            name: name_of(service, cookie),
            kept: false,
            watch: None,
        }
    }

    /// Has the service manager keep it.
    pub(super) fn keep(&mut self) -> Keeping {
        let keeping = self.store.keep(&self.name, self.socket.as_fd());
        self.kept = keeping == Keeping::Kept;
        keeping
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

    /// Has nothing come to it any more, and none of its handshakes end.
    pub(super) fn ignore_packets(&self) -> io::Result<()> {
        packets::ignore(self.as_fd())
    }

    /// Takes that back, whichever daemon did it.
    pub(super) fn take_packets(&self) -> io::Result<()> {
        packets::take(self.as_fd())
    }

    /// Closes it for good, whoever has a duplicate of it: the service manager has one, and forgets it
    /// when it gets to it, and the watch has one, which the runtime closes when it gets to it.
    pub(in crate::daemon) fn close(self) {
        if let Err(error) = socket::shutdown(self.socket.as_fd())
            && error.kind() != io::ErrorKind::NotConnected
        {
            warn!(%error, "cannot shut a parking listener down");
        }
        self.store.forget(&self.name);
    }
}

impl AsFd for ParkingListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
