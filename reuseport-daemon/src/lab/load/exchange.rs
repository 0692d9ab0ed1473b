//! A client's end of a connection, with blocking calls and a time limit on each.

use std::{io, net::SocketAddr, os::fd::OwnedFd, time::Duration};

use rustix::{
    io::{Errno, retry_on_intr},
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, recv, send, sendto,
        socket_with,
        sockopt::{Timeout, set_socket_linger, set_socket_timeout},
    },
};

use super::{
    LoadOptions, Opening,
    judgement::Judgement,
    protocol::{LONGEST_ANSWER, Protocol},
};
use crate::lab::{
    ledger::LossKind,
    wire::{After, Request, RequestId, Tag},
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
    options: &LoadOptions,
    target: SocketAddr,
    id: RequestId,
) -> Result<Tag, Failure> {
    let socket = match options.opening {
        Opening::Handshake => {
            let socket = open(target, options.step_timeout)?;
            if let Some(gate) = &options.gate {
                gate.pass();
            }
            ask(&socket, options.protocol, id, After::Close)?;
            socket
        }
        Opening::FastOpen => open_asking(options, target, id)?,
    };
    // There is room for more than an answer, so this reads to the end of the stream: what comes too
    // much is seen.
    let tag = answer(&socket, options.protocol, id, RecvFlags::WAITALL)?;
    match receive(&socket, &mut [0], RecvFlags::empty())? {
        0 => Ok(tag),
        _ => Err(Failure::Lost(LossKind::Wrong)),
    }
}

/// Asks, and leaves the connection open once the answer is there.
pub(super) fn ask_again(
    socket: &OwnedFd,
    protocol: Protocol,
    id: RequestId,
) -> Result<Tag, Failure> {
    ask(socket, protocol, id, After::KeepOpen)?;
    answer(socket, protocol, id, RecvFlags::empty())
}

/// Connects; closing the socket resets the connection.
pub(super) fn open(target: SocketAddr, step_timeout: Duration) -> Result<OwnedFd, Failure> {
    let socket = unconnected(target, step_timeout)?;
    // Interrupted, it goes on meanwhile, and asking again waits for its end.
    retry_on_intr(|| connect(&socket, &target)).map_err(|errno| failure("connect", errno))?;
    Ok(socket)
}

/// Connects with a SYN that brings the request along.
fn open_asking(
    options: &LoadOptions,
    target: SocketAddr,
    id: RequestId,
) -> Result<OwnedFd, Failure> {
    const FAST_OPEN: SendFlags = SendFlags::from_bits_retain(libc::MSG_FASTOPEN.cast_unsigned());
    let socket = unconnected(target, options.step_timeout)?;
    let after = After::Close;
    let request = options.protocol.request(Request { id, after });
    sendto(&socket, &request, FAST_OPEN | SendFlags::NOSIGNAL, &target)
        .map_err(|errno| failure("send with the SYN", errno))?;
    Ok(socket)
}

fn unconnected(target: SocketAddr, step_timeout: Duration) -> Result<OwnedFd, Failure> {
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
    Ok(socket)
}

fn ask(socket: &OwnedFd, protocol: Protocol, id: RequestId, after: After) -> Result<(), Failure> {
    let request = protocol.request(Request { id, after });
    // A new connection's send buffer takes these few bytes whole.
    retry_on_intr(|| send(socket, &request, SendFlags::NOSIGNAL))
        .map_err(|errno| failure("send", errno))?;
    Ok(())
}

/// The label of whoever answered, if that is the whole answer to this request and nothing else.
fn answer(
    socket: &OwnedFd,
    protocol: Protocol,
    id: RequestId,
    flags: RecvFlags,
) -> Result<Tag, Failure> {
    let mut bytes = [0; LONGEST_ANSWER + 1];
    let mut length = 0;
    while length < bytes.len() {
        match receive(socket, &mut bytes[length..], flags)? {
            0 => return Err(Failure::Lost(LossKind::Eof)),
            more => length += more,
        }
        match protocol.judge(&bytes[..length], id) {
            Judgement::Incomplete => {}
            Judgement::Right(tag) => return Ok(tag),
            Judgement::Wrong => break,
        }
    }
    Err(Failure::Lost(LossKind::Wrong))
}

fn receive(socket: &OwnedFd, bytes: &mut [u8], flags: RecvFlags) -> Result<usize, Failure> {
    // A call with a timeout is not resumed after a signal, such as one that stops and continues us.
    let (length, _) = retry_on_intr(|| recv(socket, &mut *bytes, flags))
        .map_err(|errno| failure("receive", errno))?;
    Ok(length)
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
