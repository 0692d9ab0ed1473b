//! What a worker is told by others.

use std::{
    os::fd::OwnedFd,
    sync::{Arc, mpsc},
};

use super::options::Stop;

/// What a worker can be told.
pub(super) enum Message {
    /// Serve a connection that another thread has accepted.
    Adopt(OwnedFd),
    /// Count a listener of another thread that somebody else has closed.
    ListenerLost,
    /// Stop listening, then say so.
    StopListening(Stop, mpsc::Sender<()>),
    /// End once every connection has had an answer.
    Finish,
}

/// The way to a worker.
#[derive(Clone, Debug)]
pub(super) struct Inbox {
    messages: mpsc::Sender<Message>,
    wake: Arc<OwnedFd>,
}

impl Inbox {
    /// `wake` is an eventfd that the worker waits for.
    pub(super) fn new(messages: mpsc::Sender<Message>, wake: OwnedFd) -> Self {
        Self {
            messages,
            wake: Arc::new(wake),
        }
    }

    /// The eventfd.
    pub(super) fn wake(&self) -> &Arc<OwnedFd> {
        &self.wake
    }

    pub(super) fn send(&self, message: Message) {
        // A worker that is gone drops what is sent to it, and a full eventfd has woken it.
        let _ = self.messages.send(message);
        let _ = rustix::io::write(&*self.wake, &1_u64.to_ne_bytes());
    }
}
