//! A connected Unix stream, and how it ends without waiting for anybody.

use std::{io, os::unix::net, sync::Arc};

use rustix::{
    io::ioctl_fionread,
    net::{Shutdown, shutdown, sockopt},
};
use tokio::net::UnixStream;

use crate::sys::passed::{Closer, Passed};

/// A connected stream, with what closes the descriptors that come over it.
///
/// The stream itself may bring some that nobody has received: the kernel closes these with it
/// (`unix_release_sock`, <https://elixir.bootlin.com/linux/v6.18/source/net/unix/af_unix.c>).
#[derive(Debug)]
pub(super) struct Line {
    /// None when it is being dropped.
    stream: Option<UnixStream>,
    closer: Arc<Closer>,
}

impl Line {
    pub(super) fn new(stream: UnixStream, closer: Arc<Closer>) -> Self {
        // A read that passes over an urgent byte closes the descriptors that came with it
        // (`manage_oob`, same file); as part of the stream it is read like any other.
        let _ = sockopt::set_socket_oobinline(&stream, true);
        Self {
            stream: Some(stream),
            closer,
        }
    }

    /// The stream.
    ///
    /// # Errors
    ///
    /// None while there is a `Line` to ask.
    pub(super) fn stream(&self) -> io::Result<&UnixStream> {
        let gone = || io::Error::from(io::ErrorKind::NotConnected);
        self.stream.as_ref().ok_or_else(gone)
    }

    /// What closes the descriptors that come.
    pub(super) fn closer(&self) -> &Arc<Closer> {
        &self.closer
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let Some(stream) = self.stream.take() else {
            return;
        };
        if let Ok(stream) = stream.into_std() {
            close(stream, &self.closer);
        }
    }
}

/// Closes a stream that may bring descriptors which nobody has received.
pub(super) fn close(stream: net::UnixStream, closer: &Arc<Closer>) {
    // Nothing more can arrive from here on, so that what is unread can be told for good.
    let _ = shutdown(&stream, Shutdown::Both);
    if !ioctl_fionread(&stream).is_ok_and(|unread| unread == 0) {
        drop(Passed::new(stream.into(), closer));
    }
}
