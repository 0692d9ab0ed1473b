//! Sockets of the test's own, in a namespace: the listeners that are as they should be, and those
//! that are not; and duplicates of a server's.

use std::{fs, net::SocketAddr, os::fd::OwnedFd};

use anyhow::{Context, Result};
use reuseport_daemon::{lab::fixture::Fixture, sys::netns::Netns};
use rustix::{
    io::Errno,
    net::{
        AddressFamily, SocketFlags, SocketType, bind, connect, listen, socket_with,
        sockopt::{set_socket_reuseaddr, set_socket_reuseport, socket_acceptconn},
    },
    process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open},
};

/// How far a TCP socket has come, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// It has an address.
    Bound,
    /// It listens, with `SO_REUSEPORT` set before it was bound.
    Listening,
    /// It listens, with `SO_REUSEPORT` set afterwards: it is in no group.
    SharedLate,
    /// It listens without `SO_REUSEPORT`.
    Alone,
}

/// A TCP socket at `address`.
///
/// # Errors
///
/// What the kernel says.
pub fn tcp(netns: &Netns, address: SocketAddr, made: Made) -> Result<OwnedFd> {
    Ok(netns.enter(|| make(address, made))??)
}

/// The client's end of a connection to `address`.
///
/// # Errors
///
/// What the kernel says.
pub fn connected(netns: &Netns, address: SocketAddr) -> Result<OwnedFd> {
    let socket = netns.enter(|| {
        let socket = socket_of(address, SocketType::STREAM)?;
        connect(&socket, &address)?;
        Ok::<_, Errno>(socket)
    })??;
    Ok(socket)
}

/// A UDP socket at `address`.
///
/// # Errors
///
/// What the kernel says.
pub fn udp(netns: &Netns, address: SocketAddr) -> Result<OwnedFd> {
    let socket = netns.enter(|| {
        let socket = socket_of(address, SocketType::DGRAM)?;
        bind(&socket, &address)?;
        Ok::<_, Errno>(socket)
    })??;
    Ok(socket)
}

/// Duplicates of a server's listeners.
///
/// # Errors
///
/// Where the server is gone, or may not be looked at.
pub fn listeners_of(server: &Fixture) -> Result<Vec<OwnedFd>> {
    let pid = server.pid();
    let raw = Pid::from_raw(pid.try_into()?).context("a pid")?;
    let pidfd = pidfd_open(raw, PidfdFlags::empty())?;
    let mut listeners = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let number = entry?.file_name().to_string_lossy().parse()?;
        match pidfd_getfd(&pidfd, number, PidfdGetfdFlags::empty()) {
            Ok(fd) if socket_acceptconn(&fd).unwrap_or(false) => listeners.push(fd),
            // Something else, or a connection that has ended since the directory was read.
            Ok(_) | Err(Errno::BADF) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(listeners)
}

fn make(address: SocketAddr, made: Made) -> Result<OwnedFd, Errno> {
    const BACKLOG: i32 = 16;
    let socket = socket_of(address, SocketType::STREAM)?;
    set_socket_reuseaddr(&socket, true)?;
    set_socket_reuseport(&socket, matches!(made, Made::Bound | Made::Listening))?;
    bind(&socket, &address)?;
    if made != Made::Bound {
        listen(&socket, BACKLOG)?;
    }
    if made == Made::SharedLate {
        set_socket_reuseport(&socket, true)?;
    }
    Ok(socket)
}

fn socket_of(address: SocketAddr, kind: SocketType) -> Result<OwnedFd, Errno> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    socket_with(family, kind, SocketFlags::CLOEXEC, None)
}
