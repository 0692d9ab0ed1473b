//! Descriptors that the runtime watches.

#![expect(
    unsafe_code,
    reason = "tokio asks its callers to vouch for the descriptor"
)]

use std::{future::Future, io, os::fd::OwnedFd};

use tokio::io::{Interest, unix::AsyncFd};

/// Lets the runtime tell when `fd` becomes readable: a pidfd when its process ends, a ring buffer
/// when there is something in it.
///
/// # Errors
///
/// Where `epoll` does not take it, or has no room.
///
/// # Panics
///
/// Outside of a runtime.
pub fn readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an owned descriptor stays open, and the same one, until the `AsyncFd` that owns it
    // from here on deregisters and drops it.
    let watched = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
    Ok(watched?)
}

/// Resolves when the other end of a connected socket is closed. One that only sends no more
/// (`shutdown(SHUT_WR)`) may still read, and is not taken for closed.
///
/// # Errors
///
/// Where `epoll` does not take it, or has no room.
///
/// # Panics
///
/// Outside of a runtime.
pub fn hang_up(socket: OwnedFd) -> io::Result<impl Future<Output = ()>> {
    // SAFETY: as above.
    let watched = unsafe { AsyncFd::register_with_interest(socket, Interest::WRITABLE) }?;
    Ok(async move {
        // Room to write comes and goes; that the other end is closed (EPOLLHUP) stays. An error
        // means that the runtime ends.
        while let Ok(mut ready) = watched.writable().await {
            if ready.ready().is_write_closed() {
                return;
            }
            ready.clear_ready();
        }
    })
}

#[cfg(test)]
mod tests {
    use std::{net::Shutdown, os::unix::net::UnixStream, time::Duration};

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn only_a_close_is_a_hang_up() {
        const SHORT: Duration = Duration::from_millis(50);
        const LONG: Duration = Duration::from_secs(10);
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let hang_up = hang_up(ours.into()).expect("watched");
        tokio::pin!(hang_up);
        assert!(timeout(SHORT, &mut hang_up).await.is_err());
        theirs.shutdown(Shutdown::Write).expect("shutdown");
        assert!(timeout(SHORT, &mut hang_up).await.is_err());
        drop(theirs);
        assert!(timeout(LONG, &mut hang_up).await.is_ok());
    }
}
