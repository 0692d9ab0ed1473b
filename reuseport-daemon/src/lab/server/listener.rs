//! Listening sockets, and what `accept` can say.

use std::{
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
};

use rustix::{
    io::{Errno, ioctl_fionbio},
    net::{SocketFlags, accept_with, sockopt::socket_acceptconn},
};
use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;

use super::options::{Acceptor, Options};
use crate::{
    domain::Address,
    sys::{
        listen_options::{set_defer_accept, set_fast_open},
        unix_socket,
    },
};

/// A listener that cannot be had.
#[derive(Debug, Error)]
pub enum ListenError {
    /// An address cannot be listened on.
    #[error("listen on {address}")]
    Open {
        /// Which.
        address: Address,
        /// What the kernel said.
        source: io::Error,
    },
    /// Nobody passes one.
    #[error("be passed a listener")]
    Passed(#[source] io::Error),
}

/// One listener for each address, or the one that is passed.
pub(super) fn open_all(options: &Options) -> Result<Vec<OwnedFd>, ListenError> {
    if let Some(socket) = &options.passed_by {
        return passed_by(options, socket).map_err(ListenError::Passed);
    }
    let open_one = |address: &Address| {
        open(options, address).map_err(|source| ListenError::Open {
            address: address.clone(),
            source,
        })
    };
    options.listen.iter().map(open_one).collect()
}

fn open(options: &Options, address: &Address) -> io::Result<OwnedFd> {
    let domain = Domain::for_address(address.socket);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(!options.without_reuse_port)?;
    if address.socket.is_ipv6() {
        socket.set_only_v6(address.v6only)?;
    }
    if let Some(device) = &address.device {
        socket.bind_device(Some(device.as_bytes()))?;
    }
    if let Some(seconds) = options.defer_accept {
        set_defer_accept(socket.as_fd(), seconds)?;
    }
    if let Some(waiting) = options.fast_open {
        set_fast_open(socket.as_fd(), waiting)?;
    }
    for option in &options.set {
        option.set(socket.as_fd())?;
    }
    socket.set_nonblocking(options.acceptor != Acceptor::Blocking)?;
    socket.bind(&address.socket.into())?;
    socket.listen(options.backlog.into())?;
    Ok(socket.into())
}

/// Whoever passes it keeps it too, so that it outlives this server.
fn passed_by(options: &Options, socket: &Path) -> io::Result<Vec<OwnedFd>> {
    let stream = UnixStream::connect(socket)?;
    let received = unix_socket::receive(&stream, &mut [0])?;
    for listener in &received.fds {
        ioctl_fionbio(listener, options.acceptor != Acceptor::Blocking)?;
    }
    if received.fds.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(received.fds)
}

/// Whether it still listens: whoever has a duplicate of it can end that.
pub(super) fn is_listening(listener: &OwnedFd) -> bool {
    socket_acceptconn(listener).unwrap_or(false)
}

/// What an `accept` came to.
pub(super) enum Accepted {
    /// A connection.
    Connection(OwnedFd),
    /// Nothing waits.
    Empty,
    /// That one is gone; there may be another.
    Next,
    /// No descriptor or no memory for it; it waits on.
    NoRoom,
    /// The socket listens no more: somebody has shut it down.
    Closed,
}

/// Accepts one connection. It is non-blocking, whatever the listener is.
pub(super) fn accept_one(listener: &OwnedFd) -> Accepted {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    match accept_with(listener, flags) {
        Ok(connection) => Accepted::Connection(connection),
        Err(Errno::AGAIN) => Accepted::Empty,
        Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => Accepted::NoRoom,
        Err(Errno::INVAL | Errno::BADF | Errno::NOTSOCK) => Accepted::Closed,
        // accept(2): errors of a connection that failed meanwhile are to be treated like EAGAIN.
        Err(_) => Accepted::Next,
    }
}
