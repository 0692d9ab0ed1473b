//! Letting clients in, also where there is nothing left to do it with.
//!
//! A table of descriptors that is full leaves the listener readable, so that to try again at once would
//! keep a CPU busy for nothing, and to wait would leave clients without a word. One descriptor is kept
//! for that moment: it is given up, the client taken in its place, told, and sent away.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net,
    },
};

use rustix::net::{SocketFlags, accept_with};
use tokio::net::{UnixListener, UnixStream};
use tracing::{info, warn};

/// The listener, and what is kept for those who come when there is nothing left.
#[derive(Debug)]
pub(super) struct Door {
    listener: UnixListener,
    spare: Option<OwnedFd>,
    /// Whether the last one who came found nothing left. It is said once.
    short: bool,
}

/// Somebody has come.
#[derive(Debug)]
pub(super) enum Visit {
    /// And is in.
    In(UnixStream),
    /// There is nothing left to serve them with.
    Short {
        /// The client, if it could be taken to be told.
        client: Option<net::UnixStream>,
        /// What there is none of.
        error: io::Error,
    },
}

impl Door {
    pub(super) fn new(listener: UnixListener) -> Self {
        Self {
            listener,
            spare: spare(),
            short: false,
        }
    }

    /// Waits for the next client.
    ///
    /// # Errors
    ///
    /// Where the listener itself is broken.
    pub(super) async fn next(&mut self) -> io::Result<Visit> {
        loop {
            if self.spare.is_none() {
                self.spare = spare();
            }
            match self.listener.accept().await {
                Ok((stream, _)) => return Ok(self.let_in(stream)),
                Err(error) if is_shortage(&error) => return Ok(self.be_short(error)),
                Err(error) if is_transient(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The listener again, which nobody is let in at any more.
    pub(super) fn close(self) -> io::Result<net::UnixListener> {
        self.listener.into_std()
    }

    fn let_in(&mut self, stream: UnixStream) -> Visit {
        if self.short {
            info!("clients of the control socket are served again");
            self.short = false;
        }
        Visit::In(stream)
    }

    /// There was nothing left. The kernel says so also when nobody has come: it looks for a descriptor
    /// before it looks for a client (`__sys_accept4_file`,
    /// <https://elixir.bootlin.com/linux/v6.18/source/net/socket.c>). Who comes later, when there is
    /// enough again, is let in.
    fn be_short(&mut self, error: io::Error) -> Visit {
        let Some(client) = self.take_with_the_spare() else {
            return Visit::Short {
                client: None,
                error,
            };
        };
        // Whoever lacks something else than descriptors is told so with what there is.
        if is_full(&error) {
            self.spare = spare();
        }
        if self.spare.is_some() {
            return match UnixStream::from_std(client) {
                Ok(stream) => self.let_in(stream),
                Err(error) => Visit::Short {
                    client: None,
                    error,
                },
            };
        }
        if !self.short {
            warn!(%error, "clients of the control socket are turned away");
            self.short = true;
        }
        Visit::Short {
            client: Some(client),
            error,
        }
    }

    fn take_with_the_spare(&mut self) -> Option<net::UnixStream> {
        drop(self.spare.take()?);
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // Another thread may have been faster, or the client has gone.
        Some(accept_with(self.listener.as_fd(), flags).ok()?.into())
    }
}

fn spare() -> Option<OwnedFd> {
    Some(File::open("/dev/null").ok()?.into())
}

/// Whether a table of descriptors was full.
fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// Errors of `accept`, and of `epoll_ctl` after it, that go away when something else is given back.
/// `ENOSPC` is said of a user's watches (`ep_insert`,
/// <https://elixir.bootlin.com/linux/v6.18/source/fs/eventpoll.c>).
pub(super) fn is_shortage(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::ENOSPC)
    )
}

/// Errors of `accept` that concern one connection only.
fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ECONNABORTED | libc::EINTR | libc::EPERM | libc::EPROTO)
    )
}
