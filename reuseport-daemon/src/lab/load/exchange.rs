//! A client's end of a connection, with blocking calls and a time limit on each.

use std::{io, net::SocketAddr, os::fd::OwnedFd, time::Duration};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, recv, send,
        socket_with,
        sockopt::{Timeout, set_socket_linger, set_socket_timeout},
    },
};

use crate::lab::{
    ledger::LossKind,
    wire::{ANSWER_LEN, After, Answer, Request, RequestId, Tag},
};

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// The connection or its answer was lost.
    Lost(LossKind),
    /// The client itself was not able to.
    Unable(&'static str, io::Error),
}

/// One connection from beginning to end: ask, read the answer and the end of the stream, reset.
///
/// The reset leaves neither side in `TIME_WAIT`, so ports come free at once. It finds the server's
/// end of the connection, closed or not, and so never looks for a listener: each connection makes
/// exactly one run of a reuseport program. Only a link that loses packets adds a few runs, for
/// segments that are sent again to a connection that is gone by then.
pub(super) fn exchange(
    target: SocketAddr,
    step_timeout: Duration,
    id: RequestId,
) -> Result<Tag, Failure> {
    let socket = open(target, step_timeout)?;
    ask(&socket, id, After::Close)?;
    // Room for one byte more than is due: what comes too much is seen, and what comes right is read
    // together with the end of the stream.
    let mut bytes = [0; ANSWER_LEN + 1];
    let length = receive(&socket, &mut bytes)?;
    let tag = check(&bytes[..length], id)?;
    match receive(&socket, &mut [0])? {
        0 => Ok(tag),
        _ => Err(Failure::Lost(LossKind::Wrong)),
    }
}

/// Connects; closing the socket resets the connection.
pub(super) fn open(target: SocketAddr, step_timeout: Duration) -> Result<OwnedFd, Failure> {
    let unable = |step| move |errno: Errno| Failure::Unable(step, errno.into());
    let family = match target {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .map_err(unable("make a socket"))?;
    set_socket_linger(&socket, Some(Duration::ZERO)).map_err(unable("set SO_LINGER"))?;
    for direction in [Timeout::Send, Timeout::Recv] {
        set_socket_timeout(&socket, direction, Some(step_timeout))
            .map_err(unable("set a timeout"))?;
    }
    connect(&socket, &target).map_err(|errno| failure("connect", errno))?;
    Ok(socket)
}

/// Sends a request.
pub(super) fn ask(socket: &OwnedFd, id: RequestId, after: After) -> Result<(), Failure> {
    let request = Request { id, after }.encode();
    // A new connection's send buffer takes these few bytes whole.
    send(socket, &request, SendFlags::NOSIGNAL).map_err(|errno| failure("send", errno))?;
    Ok(())
}

/// Reads until the buffer is full or the stream ends.
pub(super) fn receive(socket: &OwnedFd, bytes: &mut [u8]) -> Result<usize, Failure> {
    let (length, _) =
        recv(socket, bytes, RecvFlags::WAITALL).map_err(|errno| failure("receive", errno))?;
    Ok(length)
}

/// The label of whoever answered, if that is the whole answer to this request and nothing else.
pub(super) fn check(bytes: &[u8], id: RequestId) -> Result<Tag, Failure> {
    if bytes.len() < ANSWER_LEN {
        return Err(Failure::Lost(LossKind::Eof));
    }
    <&[u8; ANSWER_LEN]>::try_from(bytes)
        .ok()
        .and_then(Answer::decode)
        .filter(|answer| answer.id == id)
        .map(|answer| answer.tag)
        .ok_or(Failure::Lost(LossKind::Wrong))
}

/// What the network did to the connection is a loss; anything else is the client's own trouble.
fn failure(step: &'static str, errno: Errno) -> Failure {
    let kind = match errno {
        Errno::CONNREFUSED => LossKind::Refused,
        Errno::CONNRESET | Errno::PIPE | Errno::CONNABORTED => LossKind::Reset,
        // With a timeout set, a blocking connect ends with EINPROGRESS and the others with EAGAIN.
        Errno::INPROGRESS | Errno::AGAIN | Errno::TIMEDOUT => LossKind::TimedOut,
        other => return Failure::Unable(step, other.into()),
    };
    Failure::Lost(kind)
}
