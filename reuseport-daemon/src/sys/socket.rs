//! What a descriptor is, and what kind of socket.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::fstat,
    io::Errno,
    net::{
        AddressFamily, Protocol, Shutdown, SocketType, getpeername, getsockname, ipproto,
        shutdown as shut_down, sockopt,
    },
};
use socket2::SockRef;
use thiserror::Error;

use crate::domain::{Address, SocketCookie, Uid};

/// What stands for a device that a socket is bound to and that is no longer there. No device can be
/// called that, and no connection can reach such a socket.
pub(super) const VANISHED_DEVICE: &str = "(gone)";

/// A fact could not be read.
#[derive(Debug, Error)]
#[error("{call} failed")]
pub struct SocketError {
    call: &'static str,
    source: io::Error,
}

/// What a descriptor turns out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketFacts {
    /// A file, a pipe, or the like.
    NotASocket,
    /// A socket of another kind, such as `UDP` or `unix`.
    Other(&'static str),
    /// A TCP socket.
    Tcp(TcpFacts),
}

/// The facts of a TCP socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpFacts {
    /// Where it is bound; nothing where it is not.
    pub address: Option<Address>,
    /// Whether it listens.
    pub listening: bool,
    /// `SO_REUSEPORT`.
    pub reuseport: bool,
    /// `SO_COOKIE`, its identity.
    pub cookie: SocketCookie,
    /// The owner that the kernel compares in a reuseport group.
    pub owner: Uid,
    /// Its inode.
    pub inode: u32,
}

/// What `fd` is.
///
/// # Errors
///
/// When a fact of a TCP socket cannot be read, which none that is one refuses.
pub fn facts(fd: BorrowedFd<'_>) -> Result<SocketFacts, SocketError> {
    let family = match sockopt::socket_domain(fd) {
        Ok(family) => family,
        // Known without `fstat`, which a file system in user space need not answer. BADF is for
        // the name of a unix socket in a file system, opened with O_PATH.
        Err(Errno::NOTSOCK | Errno::BADF) => return Ok(SocketFacts::NotASocket),
        Err(error) => return Err(failed("getsockopt(SO_DOMAIN)")(error)),
    };
    let kind = sockopt::socket_type(fd).map_err(failed("getsockopt(SO_TYPE)"))?;
    let protocol = sockopt::socket_protocol(fd).map_err(failed("getsockopt(SO_PROTOCOL)"))?;
    if let Some(other) = other_than_tcp(family, kind, protocol) {
        return Ok(SocketFacts::Other(other));
    }
    let stat = fstat(fd).map_err(failed("fstat"))?;
    Ok(SocketFacts::Tcp(TcpFacts {
        address: local_address(fd)?,
        listening: sockopt::socket_acceptconn(fd).map_err(failed("getsockopt(SO_ACCEPTCONN)"))?,
        reuseport: sockopt::socket_reuseport(fd).map_err(failed("getsockopt(SO_REUSEPORT)"))?,
        cookie: sockopt::socket_cookie(fd)
            .map(SocketCookie)
            .map_err(failed("getsockopt(SO_COOKIE)"))?,
        owner: Uid(stat.st_uid),
        // The kernel counts the inodes of sockets in 32 bits.
        inode: u32::try_from(stat.st_ino).unwrap_or_default(),
    }))
}

/// Closes a listener for everyone who holds it (`SHUT_RD`). The kernel then moves its connections
/// where it can, and its owner's `accept` fails with EINVAL.
///
/// # Errors
///
/// ENOTCONN where it does not listen, or not any more.
pub fn shutdown(listener: BorrowedFd<'_>) -> io::Result<()> {
    Ok(shut_down(listener, Shutdown::Read)?)
}

/// The other end of a connection.
///
/// # Errors
///
/// ENOTCONN where it has gone.
pub fn peer(connection: BorrowedFd<'_>) -> io::Result<SocketAddr> {
    let peer = getpeername(connection)?.ok_or(Errno::NOTCONN)?;
    let peer = SocketAddr::try_from(peer)?;
    Ok(SocketAddr::new(peer.ip().to_canonical(), peer.port()))
}

/// Whether a connection has been reset. One whose other end only sends no more may still be
/// answered, and the two cannot be told from here.
#[must_use]
pub fn is_reset(connection: BorrowedFd<'_>) -> bool {
    const AT_ONCE: Timespec = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // A poll that does not wait is neither interrupted nor short of memory. It tells of a hang-up
    // without being asked.
    let mut fds = [PollFd::new(&connection, PollFlags::empty())];
    poll(&mut fds, Some(&AT_ONCE)).is_ok_and(|ready| ready > 0)
}

fn failed(call: &'static str) -> impl Fn(Errno) -> SocketError {
    move |error| SocketError {
        call,
        source: error.into(),
    }
}

/// The name of what it is, unless it is TCP.
fn other_than_tcp(
    family: AddressFamily,
    kind: SocketType,
    protocol: Option<Protocol>,
) -> Option<&'static str> {
    match family {
        AddressFamily::INET | AddressFamily::INET6 => match (kind, protocol) {
            (SocketType::RAW, _) => Some("raw IP"),
            (_, Some(ipproto::TCP)) => None,
            (_, Some(ipproto::UDP)) => Some("UDP"),
            (_, Some(ipproto::UDPLITE)) => Some("UDP-Lite"),
            (_, Some(ipproto::MPTCP)) => Some("MPTCP"),
            (_, Some(ipproto::SCTP)) => Some("SCTP"),
            _ => Some("other IP"),
        },
        AddressFamily::UNIX => Some("unix"),
        AddressFamily::NETLINK => Some("netlink"),
        AddressFamily::PACKET => Some("packet"),
        AddressFamily::VSOCK => Some("vsock"),
        _ => Some("non-IP"),
    }
}

fn local_address(fd: BorrowedFd<'_>) -> Result<Option<Address>, SocketError> {
    let name = getsockname(fd).map_err(failed("getsockname"))?;
    let socket = SocketAddr::try_from(name).map_err(failed("getsockname"))?;
    if socket.port() == 0 {
        return Ok(None);
    }
    let v6only =
        socket.is_ipv6() && sockopt::ipv6_v6only(fd).map_err(failed("getsockopt(IPV6_V6ONLY)"))?;
    Ok(Some(Address {
        // Without flow information and scope: the latter comes back as the device.
        socket: SocketAddr::new(socket.ip(), socket.port()),
        v6only,
        device: device(fd)?,
    }))
}

fn device(fd: BorrowedFd<'_>) -> Result<Option<String>, SocketError> {
    match SockRef::from(&fd.as_fd()).device() {
        Ok(name) => Ok(name.map(|name| String::from_utf8_lossy(&name).into_owned())),
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {
            Ok(Some(VANISHED_DEVICE.to_owned()))
        }
        Err(source) => Err(SocketError {
            call: "getsockopt(SO_BINDTODEVICE)",
            source,
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, UdpSocket},
        os::unix::net::UnixDatagram,
    };

    use rustix::fs::{CWD, Mode, OFlags, fchown, openat};
    use socket2::{Domain, Socket, Type};

    use super::*;
    use crate::sys::sock_diag::SockDiag;

    fn tcp(fd: impl AsFd) -> TcpFacts {
        let SocketFacts::Tcp(facts) = facts(fd.as_fd()).expect("facts") else {
            panic!("not TCP");
        };
        facts
    }

    fn stream(domain: Domain) -> Option<Socket> {
        Socket::new(domain, Type::STREAM, None).ok()
    }

    #[test]
    fn what_is_no_tcp_socket_is_named() {
        let file = File::open("/proc/self/stat").expect("open");
        let (pipe, _end) = io::pipe().expect("pipe");
        for fd in [file.as_fd(), pipe.as_fd()] {
            assert_eq!(facts(fd).expect("facts"), SocketFacts::NotASocket);
        }

        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        let (unix, _peer) = UnixDatagram::pair().expect("pair");
        let netlink = netlink_sys::Socket::new(netlink_sys::protocols::NETLINK_SOCK_DIAG);
        let netlink = netlink.expect("socket");
        for (fd, name) in [
            (udp.as_fd(), "UDP"),
            (unix.as_fd(), "unix"),
            (netlink.as_fd(), "netlink"),
        ] {
            assert_eq!(facts(fd).expect("facts"), SocketFacts::Other(name));
        }
    }

    #[test]
    fn the_name_of_a_unix_socket_is_not_the_socket() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("socket");
        let _socket = UnixDatagram::bind(&path).expect("bind");
        let name = openat(CWD, &path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        let name = name.expect("open");
        assert_eq!(facts(name.as_fd()).expect("facts"), SocketFacts::NotASocket);
    }

    #[test]
    fn a_tcp_socket_goes_through_its_states() {
        let socket = stream(Domain::IPV4).expect("socket");
        let unbound = tcp(&socket);
        assert_eq!((unbound.address, unbound.listening), (None, false));
        assert!(!unbound.reuseport);

        socket.set_reuse_port(true).expect("SO_REUSEPORT");
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        socket.bind(&any.into()).expect("bind");
        socket.listen(1).expect("listen");
        let listener = TcpListener::from(socket);
        let address = listener.local_addr().expect("an address");
        let facts = tcp(&listener);
        assert!(facts.listening && facts.reuseport);
        assert_eq!(facts.address, Some(Address::plain(address)));
        assert_eq!(facts.cookie, unbound.cookie);
        assert_eq!(facts.owner.0, rustix::process::geteuid().as_raw());

        let client = TcpStream::connect(address).expect("connect");
        assert!(!tcp(&client).listening);
    }

    #[test]
    fn both_ways_of_looking_agree() {
        let diag = SockDiag::open().expect("open");
        let v6 = Ipv6Addr::UNSPECIFIED;
        let mapped = Ipv4Addr::LOCALHOST.to_ipv6_mapped();
        for (domain, ip, v6only, device) in [
            (Domain::IPV4, Ipv4Addr::LOCALHOST.into(), false, false),
            (Domain::IPV4, Ipv4Addr::LOCALHOST.into(), false, true),
            (Domain::IPV6, v6.into(), false, false),
            (Domain::IPV6, v6.into(), true, true),
            (Domain::IPV6, mapped.into(), false, false),
        ] {
            let Some(socket) = stream(domain) else {
                continue; // A kernel without IPv6.
            };
            if domain == Domain::IPV6 {
                socket.set_only_v6(v6only).expect("v6only");
            }
            socket.bind(&SocketAddr::new(ip, 0).into()).expect("bind");
            if device && socket.bind_device(Some(b"lo")).is_err() {
                continue; // Linux before 5.7 asks for CAP_NET_RAW.
            }
            // Only root may give a socket away.
            let given_away = fchown(&socket, Some(rustix::fs::Uid::from_raw(12_345)), None);
            socket.listen(7).expect("listen");

            let facts = tcp(&socket);
            let address = facts.address.expect("an address");
            assert_eq!(address.v6only, v6only);
            assert_eq!(address.device.as_deref(), device.then_some("lo"));
            if given_away.is_ok() {
                assert_eq!(facts.owner, Uid(12_345));
            }
            let rows = diag.listeners(Some(address.socket.port()));
            let rows = rows.expect("listeners");
            let row = rows.iter().find(|row| row.cookie == facts.cookie);
            let row = row.expect("the listener");
            assert_eq!(row.address, address);
            assert_eq!(row.inode, facts.inode);
            assert_eq!(row.uid, facts.owner.0);
            assert_eq!(row.backlog, 7);
        }
    }

    #[test]
    fn a_reset_is_told_from_an_end() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        let address = listener.local_addr().expect("an address");
        let client = TcpStream::connect(address).expect("connect");
        let (connection, _) = listener.accept().expect("accept");
        let client_address = client.local_addr().expect("an address");
        assert_eq!(peer(connection.as_fd()).ok(), Some(client_address));
        assert!(!is_reset(connection.as_fd()));
        client
            .shutdown(std::net::Shutdown::Write)
            .expect("shutdown");
        assert!(!is_reset(connection.as_fd()));
        // Closed at once, with a reset.
        let client = Socket::from(client);
        client
            .set_linger(Some(std::time::Duration::ZERO))
            .expect("linger");
        drop(client);
        assert!(is_reset(connection.as_fd()));
        assert!(peer(connection.as_fd()).is_err());
    }

    #[test]
    fn a_shutdown_closes_the_listener_for_every_holder() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        let address = listener.local_addr().expect("an address");
        let duplicate = listener.try_clone().expect("duplicate");
        shutdown(duplicate.as_fd()).expect("shutdown");
        assert!(!tcp(&listener).listening);
        let error = listener.accept().expect_err("closed");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        let error = TcpStream::connect(address).expect_err("closed");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        let error = shutdown(duplicate.as_fd()).expect_err("closed already");
        assert_eq!(error.kind(), io::ErrorKind::NotConnected);
    }
}
