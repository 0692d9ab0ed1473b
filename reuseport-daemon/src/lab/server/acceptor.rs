//! A thread in a blocking `accept`.

use std::{
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    thread,
    time::Duration,
};

use rustix::{
    io::ioctl_fionbio,
    net::{Shutdown, shutdown},
};

use super::{
    ServerError,
    inbox::{Inbox, Message},
    listener::{Accepted, accept_one, is_listening},
    options::Stop,
    setup,
};

/// How long to wait for a descriptor to come free.
const NO_ROOM_PAUSE: Duration = Duration::from_millis(10);

/// Accepts on one listener, and leaves the connections to a worker.
#[derive(Debug)]
pub(super) struct BlockingAcceptor {
    listener: Arc<OwnedFd>,
    inbox: Inbox,
    thread: thread::JoinHandle<()>,
}

impl BlockingAcceptor {
    pub(super) fn start(listener: OwnedFd, inbox: Inbox) -> Result<Self, ServerError> {
        let listener = Arc::new(listener);
        let thread = {
            let (listener, inbox) = (Arc::clone(&listener), inbox.clone());
            thread::Builder::new()
                .name("acceptor".to_owned())
                .spawn(move || accept_until_closed(&listener, &inbox))
                .map_err(setup("start an acceptor"))?
        };
        Ok(Self {
            listener,
            inbox,
            thread,
        })
    }

    /// Ends the thread and closes the listener. `shutdown` comes first, since a thread in `accept`
    /// holds the listener open, and nothing else gets it out of there.
    pub(super) fn stop(self, stop: Stop) {
        if !is_listening(&self.listener) {
            self.inbox.send(Message::ListenerLost);
        }
        if stop == Stop::DrainClose && ioctl_fionbio(self.listener.as_fd(), true).is_ok() {
            drain(&self.listener, &self.inbox);
        }
        // It fails where somebody else has shut it down before, and the thread has ended then.
        let _ = shutdown(&*self.listener, Shutdown::Read);
        let _ = self.thread.join();
    }
}

fn accept_until_closed(listener: &OwnedFd, inbox: &Inbox) {
    loop {
        match accept_one(listener) {
            Accepted::Connection(socket) => inbox.send(Message::Adopt(socket)),
            Accepted::Next => {}
            Accepted::NoRoom => thread::sleep(NO_ROOM_PAUSE),
            // Empty is what a listener says that is being drained by another thread.
            Accepted::Empty | Accepted::Closed => return,
        }
    }
}

fn drain(listener: &OwnedFd, inbox: &Inbox) {
    while let Accepted::Connection(socket) = accept_one(listener) {
        inbox.send(Message::Adopt(socket));
    }
}
