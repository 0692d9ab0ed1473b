//! Unix sockets: descriptors that travel with the bytes, and who is at the other end.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix,
};

/// The most descriptors that the kernel lets through in one `sendmsg` (`SCM_MAX_FD`,
/// <https://elixir.bootlin.com/linux/v6.18/source/include/net/scm.h>).
pub const SCM_MAX_FD: usize = 253;

/// What one `recvmsg` brought.
#[derive(Debug)]
pub struct Received {
    /// How many bytes; 0 is the end of the stream.
    pub bytes: usize,
    /// The descriptors that came with them, close-on-exec.
    pub fds: Vec<OwnedFd>,
    /// Whether the kernel dropped descriptors. The room for them suffices always, so it means that
    /// this process may not open more (`RLIMIT_NOFILE`) or that a security module said no
    /// (`scm_detach_fds`, <https://elixir.bootlin.com/linux/v6.18/source/net/core/scm.c>).
    pub truncated: bool,
}

/// The other end of a connection, as it was when it connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerCredentials {
    /// Process in this pid namespace; 0 where it is not visible here.
    pub pid: u32,
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
}

/// Receives bytes and the descriptors that came with them.
///
/// # Errors
///
/// Those of `recvmsg`, `WouldBlock` among them.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<Received> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SCM_MAX_FD))];
    receive_into(socket.as_fd(), buffer, &mut space)
}

fn receive_into(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    space: &mut [MaybeUninit<u8>],
) -> io::Result<Received> {
    let mut control = RecvAncillaryBuffer::new(space);
    let message = rustix::net::recvmsg(
        socket,
        &mut [IoSliceMut::new(buffer)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let mut fds = Vec::new();
    for ancillary in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = ancillary {
            fds.extend(rights);
        }
    }
    Ok(Received {
        bytes: message.bytes,
        fds,
        truncated: message.flags.contains(ReturnFlags::CTRUNC),
    })
}

/// Sends bytes, with descriptors on the first of them. Returns how many bytes were taken; the
/// descriptors went with them if that is not 0.
///
/// # Errors
///
/// Those of `sendmsg`, and `InvalidInput` for more than [`SCM_MAX_FD`] descriptors.
pub fn send(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let bytes = &[IoSlice::new(bytes)];
    with_descriptors(fds, |control| {
        rustix::net::sendmsg(socket, bytes, control, SendFlags::NOSIGNAL)
    })
}

/// Sends a datagram to an address, with descriptors.
///
/// # Errors
///
/// As [`send`].
pub fn send_to(
    socket: impl AsFd,
    address: &SocketAddrUnix,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let bytes = &[IoSlice::new(bytes)];
    with_descriptors(fds, |control| {
        rustix::net::sendmsg_addr(socket, address, bytes, control, SendFlags::NOSIGNAL)
    })?;
    Ok(())
}

fn with_descriptors(
    fds: &[BorrowedFd<'_>],
    send: impl FnOnce(&mut SendAncillaryBuffer<'_, '_, '_>) -> rustix::io::Result<usize>,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SCM_MAX_FD))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    Ok(send(&mut control)?)
}

/// `SO_PEERCRED`.
///
/// Not `rustix::net::sockopt::socket_peercred`: its pid is a `NonZero`, and the kernel says 0 for a
/// process of a pid namespace that is not visible from this one.
///
/// # Errors
///
/// Those of `getsockopt`.
#[expect(unsafe_code, reason = "no safe wrapper takes pid 0")]
pub fn peer_credentials(socket: impl AsFd) -> io::Result<PeerCredentials> {
    let mut found = libc::ucred {
        pid: 0,
        uid: 0,
        gid: 0,
    };
    let mut length = socklen(size_of::<libc::ucred>());
    // SAFETY: the pointers are to live locals, and `length` is the size of what `found` holds.
    let status = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut found).cast(),
            &raw mut length,
        )
    };
    if status != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(PeerCredentials {
        pid: u32::try_from(found.pid).unwrap_or(0),
        uid: found.uid,
        gid: found.gid,
    })
}

/// `SO_PEERPIDFD`: the process at the other end, whatever its pid names by now (Linux 6.5+).
///
/// # Errors
///
/// Those of `getsockopt`: ENOPROTOOPT before Linux 6.5, and ESRCH or EINVAL where the process has
/// ended.
#[expect(unsafe_code, reason = "rustix has no SO_PEERPIDFD")]
pub fn peer_pidfd(socket: impl AsFd) -> io::Result<OwnedFd> {
    let mut found: libc::c_int = -1;
    let mut length = socklen(size_of::<libc::c_int>());
    // SAFETY: the pointers are to live locals, and `length` is the size of what `found` holds.
    let status = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERPIDFD,
            (&raw mut found).cast(),
            &raw mut length,
        )
    };
    if status != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just opened it, close-on-exec, for this process, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(found) })
}

/// `SO_PEERGROUPS`: the supplementary groups of the other end.
///
/// # Errors
///
/// Those of `getsockopt`.
#[expect(unsafe_code, reason = "rustix has no SO_PEERGROUPS")]
pub fn peer_groups(socket: impl AsFd) -> io::Result<Vec<u32>> {
    /// What most users are in far fewer than.
    const FIRST_GUESS: usize = 64;
    let mut groups = vec![0_u32; FIRST_GUESS];
    loop {
        let mut length = socklen(size_of_val(groups.as_slice()));
        // SAFETY: `groups` has room for `length` bytes, and every bit pattern is a valid u32.
        let status = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        let error = io::Error::last_os_error();
        let count = length as usize / size_of::<u32>();
        if status == 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        // Too short a buffer is answered with the length that it takes
        // (<https://elixir.bootlin.com/linux/v6.18/source/net/core/sock.c>, SO_PEERGROUPS).
        if error.raw_os_error() != Some(libc::ERANGE) || count <= groups.len() {
            return Err(error);
        }
        groups.resize(count, 0);
    }
}

fn socklen(bytes: usize) -> libc::socklen_t {
    // The kernel reads it as an int; what is asked for here is far smaller.
    libc::socklen_t::try_from(bytes).unwrap_or(libc::socklen_t::MAX)
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Read, os::unix::net::UnixStream};

    use rustix::io::{FdFlags, fcntl_getfd};

    use super::*;
    use crate::sys::process::Process;

    #[test]
    fn descriptors_arrive_close_on_exec() {
        let (near, far) = UnixStream::pair().expect("pair");
        let file = File::open("/dev/null").expect("open");
        let fds = vec![file.as_fd(); SCM_MAX_FD];
        assert_eq!(send(&near, b"x", &fds).expect("send"), 1);
        let received = receive(&far, &mut [0; 8]).expect("receive");
        assert_eq!(received.bytes, 1);
        assert!(!received.truncated);
        assert_eq!(received.fds.len(), SCM_MAX_FD);
        for fd in &received.fds {
            let flags = fcntl_getfd(fd).expect("F_GETFD");
            assert!(flags.contains(FdFlags::CLOEXEC));
        }
    }

    #[test]
    fn more_than_the_kernel_takes_is_refused_before_the_call() {
        let (near, _far) = UnixStream::pair().expect("pair");
        let file = File::open("/dev/null").expect("open");
        let fds = vec![file.as_fd(); SCM_MAX_FD + 3];
        let error = send(&near, b"x", &fds).expect_err("too many");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn lost_descriptors_are_noticed_and_the_rest_closed() {
        let (near, far) = UnixStream::pair().expect("pair");
        let (mut reader, writer) = io::pipe().expect("pipe");
        send(&near, b"x", &[writer.as_fd(), writer.as_fd()]).expect("send");
        drop(writer);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let received = receive_into(far.as_fd(), &mut [0; 8], &mut space[..20]).expect("receive");
        assert!(received.truncated);
        assert!(received.fds.len() < 2);
        drop(received);
        // Nobody holds the writing end any more.
        assert_eq!(reader.read(&mut [0; 1]).expect("read"), 0);
    }

    #[test]
    fn the_peer_is_who_connected() {
        let (near, _far) = UnixStream::pair().expect("pair");
        let peer = peer_credentials(&near).expect("SO_PEERCRED");
        assert_eq!(peer.pid, std::process::id());
        assert_eq!(peer.uid, rustix::process::geteuid().as_raw());
        assert_eq!(peer.gid, rustix::process::getegid().as_raw());
        match peer_pidfd(&near) {
            Ok(pidfd) => {
                let flags = fcntl_getfd(&pidfd).expect("F_GETFD");
                assert!(flags.contains(FdFlags::CLOEXEC));
                let process = Process::behind(pidfd, peer.pid).expect("alive");
                assert_eq!(process.id(), Process::open(peer.pid).expect("alive").id());
            }
            // Before Linux 6.5.
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ENOPROTOOPT)),
        }
        let mut expected: Vec<u32> = rustix::process::getgroups()
            .expect("getgroups")
            .iter()
            .map(|gid| gid.as_raw())
            .collect();
        let mut found = peer_groups(&near).expect("SO_PEERGROUPS");
        expected.sort_unstable();
        found.sort_unstable();
        assert_eq!(found, expected);
    }
}
