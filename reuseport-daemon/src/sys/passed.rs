//! Descriptors that somebody else chose. Closing one takes as long as its sender likes: the last to
//! close a TCP socket lingers for as long as `SO_LINGER` says (`inet_release`,
//! <https://elixir.bootlin.com/linux/v6.18/source/net/ipv4/af_inet.c>), and a file system in user
//! space answers `close` when it pleases. To look first would not help, since whoever has another
//! copy can change the socket afterwards.
//!
//! Architecture Invariant: no thread that others wait for closes what a client chose.

use std::{
    convert::Infallible,
    mem::{self, ManuallyDrop},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    ptr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use tokio::{sync::watch, time::timeout};
use tracing::warn;

/// A descriptor that a client passed, or that was duplicated from its process. Wherever it is
/// dropped, a thread of its [`Closer`] closes it.
#[derive(Debug)]
pub struct Passed {
    fd: ManuallyDrop<OwnedFd>,
    closer: Arc<Closer>,
}

impl Passed {
    /// Sees to it that `fd` is closed by `closer`.
    #[must_use]
    pub fn new(fd: OwnedFd, closer: &Arc<Closer>) -> Self {
        closer.open.send_modify(|open| *open += 1);
        Self {
            fd: ManuallyDrop::new(fd),
            closer: Arc::clone(closer),
        }
    }

    /// The descriptor, which is its new owner's to close.
    #[must_use]
    #[expect(unsafe_code, reason = "the parts outlive the whole")]
    pub fn into_owned(self) -> OwnedFd {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: `this` is never dropped nor used again, so that nobody takes it twice.
        let fd = unsafe { ManuallyDrop::take(&mut this.fd) };
        // SAFETY: as above.
        let closer = unsafe { ptr::read(&raw const this.closer) };
        closer.open.send_modify(|open| *open -= 1);
        fd
    }
}

impl AsFd for Passed {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Passed {
    #[expect(unsafe_code, reason = "the descriptor outlives its wrapper")]
    fn drop(&mut self) {
        // SAFETY: this is the only place that takes it, and a drop happens once.
        let fd = unsafe { ManuallyDrop::take(&mut self.fd) };
        self.closer.queue().waiting.push(fd);
        self.closer.start();
    }
}

/// Closes descriptors one after the other, in a thread that lives while there are some to close.
/// Each connection has its own, so that a close that hangs holds up nobody else's.
#[derive(Debug, Default)]
pub struct Closer {
    queue: Mutex<Queue>,
    /// How many descriptors have not been closed yet, those in use included.
    open: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Vec<OwnedFd>,
    /// Whether a thread closes what waits.
    closing: bool,
}

impl Closer {
    /// Waits until every descriptor has been closed but for `kept`, which are somebody's still.
    pub async fn settled(self: &Arc<Self>, kept: usize) {
        /// How long to wait for other threads to end where none could be started.
        const RETRY: Duration = Duration::from_millis(100);
        let mut open = self.open.subscribe();
        while timeout(RETRY, open.wait_for(|open| *open <= kept))
            .await
            .is_err()
        {
            self.start();
        }
    }

    /// Sees to it, for as long as it is polled, that what nobody waits for is closed as well.
    pub async fn attended(self: &Arc<Self>) -> Infallible {
        let mut open = self.open.subscribe();
        loop {
            // The sender is this closer's own.
            let _ = open.wait_for(|open| *open > 0).await;
            self.settled(0).await;
        }
    }

    /// Starts a thread if there is something to close and none that does. Where it cannot be
    /// started the descriptors stay, until the next one is dropped or somebody waits for them.
    fn start(self: &Arc<Self>) {
        let mut queue = self.queue();
        if queue.closing || queue.waiting.is_empty() {
            return;
        }
        let closer = Arc::clone(self);
        match thread::Builder::new()
            .name("closing".to_owned())
            .spawn(move || closer.close_all())
        {
            Ok(_) => queue.closing = true,
            Err(error) => warn!(%error, "cannot start a thread that closes descriptors"),
        }
    }

    fn close_all(&self) {
        /// An instance's listeners are dropped one after the other: closed together, they cost one
        /// thread, and not one each.
        const TOGETHER: Duration = Duration::from_millis(1);
        loop {
            let waiting = {
                let mut queue = self.queue();
                queue.closing = !queue.waiting.is_empty();
                if !queue.closing {
                    return;
                }
                mem::take(&mut queue.waiting)
            };
            for fd in waiting {
                drop(fd);
                self.open.send_modify(|open| *open -= 1);
            }
            thread::sleep(TOGETHER);
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
