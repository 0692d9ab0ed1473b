//! Descriptors that the runtime watches.

#![expect(
    unsafe_code,
    reason = "tokio asks its callers to vouch for the descriptor"
)]

use std::{io, os::fd::OwnedFd};

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
