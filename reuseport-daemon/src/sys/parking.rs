//! Listeners of the daemon's own, which connections wait in.

use std::{
    ffi::c_int,
    io,
    mem::offset_of,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use libc::{IPPROTO_IP, IPPROTO_IPV6, IPPROTO_TCP, SOL_SOCKET};
use rustix::{fs::fchown, net::sockopt};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use thiserror::Error;

use super::listen_options::{get_raw, set_raw};
use crate::domain::{Address, SocketCookie, Uid};

/// The most that `listen` takes: the kernel cuts it down to `net.core.somaxconn`
/// (`__sys_listen_socket`, <https://elixir.bootlin.com/linux/v6.18/source/net/socket.c>).
const BACKLOG: c_int = c_int::MAX;

/// Room for the longest value of an option in [`OPTIONS`], the name of a congestion control.
const VALUE: usize = 16;

/// A parking listener that cannot be had.
#[derive(Debug, Error)]
#[error("{call} for a parking listener failed")]
pub struct ParkingError {
    call: &'static str,
    source: io::Error,
}

impl ParkingError {
    /// What the kernel said.
    #[must_use]
    pub fn io_error(&self) -> &io::Error {
        &self.source
    }
}

/// A parking listener that does not listen yet: it is in no group, and no connection can reach it.
#[derive(Debug)]
pub struct Made {
    /// The socket.
    pub socket: OwnedFd,
    /// Its identity.
    pub cookie: SocketCookie,
    /// Options that could not be set as they should be.
    pub unset: Vec<&'static str>,
}

/// An accept queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Connections that wait in it.
    pub queued: u32,
    /// How many may wait.
    pub backlog: u32,
}

/// What a listener is set to that its connections inherit: a connection that waits is made by the
/// parking listener, and has to be what the server would have made it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template(Vec<(&'static Inherited, Vec<u8>)>);

/// An option that a connection inherits from its listener.
#[derive(Debug, PartialEq, Eq)]
struct Inherited {
    name: &'static str,
    level: c_int,
    option: c_int,
    /// Whether the kernel tells twice of what it was told
    /// (`sk_setsockopt`, <https://elixir.bootlin.com/linux/v6.18/source/net/core/sock.c>).
    doubled: bool,
}

const fn inherited(name: &'static str, level: c_int, option: c_int) -> Inherited {
    Inherited {
        name,
        level,
        option,
        doubled: false,
    }
}

const fn doubled(name: &'static str, option: c_int) -> Inherited {
    Inherited {
        doubled: true,
        ..inherited(name, SOL_SOCKET, option)
    }
}

/// In the order in which they are set. `TCP_FASTOPEN` is left out: a client whose data are not taken
/// with its SYN sends them again, while the kernel's account of such connections does not survive
/// their being moved everywhere. Keys of `TCP_MD5SIG` and TCP-AO are left out too: who needs one is
/// not answered until a server is.
static OPTIONS: [Inherited; 31] = [
    inherited("SO_MARK", SOL_SOCKET, libc::SO_MARK),
    inherited("SO_PRIORITY", SOL_SOCKET, libc::SO_PRIORITY),
    inherited("SO_KEEPALIVE", SOL_SOCKET, libc::SO_KEEPALIVE),
    inherited("SO_LINGER", SOL_SOCKET, libc::SO_LINGER),
    inherited("SO_OOBINLINE", SOL_SOCKET, libc::SO_OOBINLINE),
    inherited("SO_RCVLOWAT", SOL_SOCKET, libc::SO_RCVLOWAT),
    doubled("SO_RCVBUF", libc::SO_RCVBUF),
    doubled("SO_SNDBUF", libc::SO_SNDBUF),
    inherited("TCP_SAVE_SYN", IPPROTO_TCP, libc::TCP_SAVE_SYN),
    inherited("TCP_DEFER_ACCEPT", IPPROTO_TCP, libc::TCP_DEFER_ACCEPT),
    inherited("TCP_NODELAY", IPPROTO_TCP, libc::TCP_NODELAY),
    inherited("TCP_MAXSEG", IPPROTO_TCP, libc::TCP_MAXSEG),
    inherited("TCP_CONGESTION", IPPROTO_TCP, libc::TCP_CONGESTION),
    inherited("TCP_KEEPIDLE", IPPROTO_TCP, libc::TCP_KEEPIDLE),
    inherited("TCP_KEEPINTVL", IPPROTO_TCP, libc::TCP_KEEPINTVL),
    inherited("TCP_KEEPCNT", IPPROTO_TCP, libc::TCP_KEEPCNT),
    inherited("TCP_USER_TIMEOUT", IPPROTO_TCP, libc::TCP_USER_TIMEOUT),
    inherited("TCP_LINGER2", IPPROTO_TCP, libc::TCP_LINGER2),
    inherited("TCP_WINDOW_CLAMP", IPPROTO_TCP, libc::TCP_WINDOW_CLAMP),
    inherited("TCP_NOTSENT_LOWAT", IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT),
    inherited("IP_TOS", IPPROTO_IP, libc::IP_TOS),
    inherited("IP_TTL", IPPROTO_IP, libc::IP_TTL),
    inherited("IP_MTU_DISCOVER", IPPROTO_IP, libc::IP_MTU_DISCOVER),
    inherited("IP_TRANSPARENT", IPPROTO_IP, libc::IP_TRANSPARENT),
    inherited("IP_FREEBIND", IPPROTO_IP, libc::IP_FREEBIND),
    inherited("IP_MINTTL", IPPROTO_IP, libc::IP_MINTTL),
    inherited("IPV6_TCLASS", IPPROTO_IPV6, libc::IPV6_TCLASS),
    inherited("IPV6_UNICAST_HOPS", IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS),
    inherited("IPV6_MTU_DISCOVER", IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER),
    inherited("IPV6_MINHOPCOUNT", IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT),
    inherited("IPV6_AUTOFLOWLABEL", IPPROTO_IPV6, libc::IPV6_AUTOFLOWLABEL),
];

impl Template {
    /// What `listener` is set to, as far as the kernel has it and tells.
    #[must_use]
    pub fn of(listener: BorrowedFd<'_>) -> Self {
        let read = |option: &'static Inherited| Some((option, option.read(listener)?));
        Self(OPTIONS.iter().filter_map(read).collect())
    }

    /// Sets `socket` to the same. What is the same already is left alone, since some options are
    /// never what they were once they have been set. Names what cannot be set.
    fn apply(&self, socket: BorrowedFd<'_>) -> Vec<&'static str> {
        let differs = |(option, value): &&(&'static Inherited, Vec<u8>)| {
            option.read(socket).as_ref() != Some(value)
        };
        let set = self.0.iter().filter(differs);
        set.filter(|(option, value)| option.set(socket, value).is_err())
            .map(|(option, _)| option.name)
            .collect()
    }
}

impl Inherited {
    fn read(&self, socket: BorrowedFd<'_>) -> Option<Vec<u8>> {
        let mut value = [0; VALUE];
        let length = get_raw(socket, self.level, self.option, &mut value).ok()?;
        let value = value.get(..length)?;
        match (<[u8; 4]>::try_from(value), self.doubled) {
            (Ok(number), true) => Some((i32::from_ne_bytes(number) / 2).to_ne_bytes().to_vec()),
            (_, true) => None,
            (_, false) => Some(value.to_vec()),
        }
    }

    fn set(&self, socket: BorrowedFd<'_>, value: &[u8]) -> io::Result<()> {
        set_raw(socket, self.level, self.option, value)
    }
}

/// Makes what [`listen`] makes a listener at `address` of, in the calling thread's network namespace.
/// The kernel takes it for one of `owner`'s: it groups sockets by the owner of their inode.
///
/// `SO_REUSEADDR` is for connections of servers that have ended, which hold the port if they or this
/// one lack it.
///
/// # Errors
///
/// `ENODEV` where the address names a device that is not there, `EPERM` without `CAP_CHOWN`.
pub fn make(
    address: &Address,
    owner: Uid,
    template: Option<&Template>,
) -> Result<Made, ParkingError> {
    let domain = Domain::for_address(address.socket);
    let socket =
        Socket::new(domain, Type::STREAM, Some(Protocol::TCP)).map_err(failed("socket"))?;
    let uid = rustix::fs::Uid::from_raw(owner.0);
    fchown(&socket, Some(uid), None)
        .map_err(io::Error::from)
        .map_err(failed("fchown"))?;
    socket
        .set_reuse_address(true)
        .map_err(failed("setsockopt(SO_REUSEADDR)"))?;
    socket
        .set_reuse_port(true)
        .map_err(failed("setsockopt(SO_REUSEPORT)"))?;
    if address.socket.is_ipv6() {
        socket
            .set_only_v6(address.v6only)
            .map_err(failed("setsockopt(IPV6_V6ONLY)"))?;
    }
    if let Some(device) = &address.device {
        socket
            .bind_device(Some(device.as_bytes()))
            .map_err(failed("setsockopt(SO_BINDTODEVICE)"))?;
    }
    let unset = template.map_or_else(Vec::new, |it| it.apply(socket.as_fd()));
    let cookie = sockopt::socket_cookie(&socket)
        .map_err(io::Error::from)
        .map_err(failed("getsockopt(SO_COOKIE)"))?;
    Ok(Made {
        socket: socket.into(),
        cookie: SocketCookie(cookie),
        unset,
    })
}

/// Lets it listen, and join the group at `address`. The program comes afterwards: a socket that has
/// a group of its own is not let into another one where the kernel looks at every socket of the port
/// (`inet_csk_bind_conflict`,
/// <https://elixir.bootlin.com/linux/v6.18/source/net/ipv4/inet_connection_sock.c>).
///
/// # Errors
///
/// `EADDRINUSE` where a listener without `SO_REUSEPORT` or of another user is there,
/// `EADDRNOTAVAIL` where the machine does not have the address, `EACCES` without
/// `CAP_NET_BIND_SERVICE`.
pub fn listen(socket: BorrowedFd<'_>, address: &Address) -> Result<(), ParkingError> {
    bind(socket, address)?;
    let listening = SockRef::from(&socket).listen(BACKLOG);
    listening.map_err(failed("listen"))
}

/// The first half of [`listen`], after which it is in no group yet.
///
/// # Errors
///
/// As [`listen`].
pub fn bind(socket: BorrowedFd<'_>, address: &Address) -> Result<(), ParkingError> {
    let bound = SockRef::from(&socket).bind(&address.socket.into());
    bound.map_err(failed("bind"))
}

/// A listener's accept queue (`tcp_get_info`,
/// <https://elixir.bootlin.com/linux/v6.18/source/net/ipv4/tcp.c>).
///
/// # Errors
///
/// What getsockopt(2) says.
pub fn queue(listener: BorrowedFd<'_>) -> io::Result<Queue> {
    let mut info = [0; size_of::<libc::tcp_info>()];
    let length = get_raw(listener, IPPROTO_TCP, libc::TCP_INFO, &mut info)?;
    let number = |at: usize| {
        let bytes = info.get(..length).and_then(|it| it.get(at..at + 4));
        let bytes = bytes.and_then(|it| <[u8; 4]>::try_from(it).ok());
        bytes
            .map(u32::from_ne_bytes)
            .ok_or(io::ErrorKind::InvalidData)
    };
    Ok(Queue {
        queued: number(offset_of!(libc::tcp_info, tcpi_unacked))?,
        backlog: number(offset_of!(libc::tcp_info, tcpi_sacked))?,
    })
}

fn failed(call: &'static str) -> impl FnOnce(io::Error) -> ParkingError {
    move |source| ParkingError { call, source }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};

    use rustix::process::geteuid;

    use super::*;
    use crate::sys::socket::{self, SocketFacts, TcpFacts};

    fn ours() -> Uid {
        Uid(geteuid().as_raw())
    }

    fn facts(socket: impl AsFd) -> TcpFacts {
        let SocketFacts::Tcp(facts) = socket::facts(socket.as_fd()).expect("facts") else {
            panic!("not TCP");
        };
        facts
    }

    fn open(address: &Address, template: Option<&Template>) -> Result<Made, ParkingError> {
        let made = make(address, ours(), template)?;
        listen(made.socket.as_fd(), address)?;
        Ok(made)
    }

    /// A server's listener, set as `change` says, in a group of its own.
    fn server(ip: SocketAddr, change: impl FnOnce(&Socket)) -> (TcpListener, Address) {
        let socket = Socket::new(Domain::for_address(ip), Type::STREAM, None).expect("socket");
        socket.set_reuse_address(true).expect("SO_REUSEADDR");
        socket.set_reuse_port(true).expect("SO_REUSEPORT");
        change(&socket);
        socket.bind(&ip.into()).expect("bind");
        socket.listen(16).expect("listen");
        let address = facts(&socket).address.expect("an address");
        (socket.into(), address)
    }

    #[test]
    fn it_joins_the_group_of_a_server() {
        for (ip, v6only) in [
            (SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), false),
            (SocketAddr::from((Ipv6Addr::LOCALHOST, 0)), true),
            (SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)), false),
        ] {
            let (_server, address) = server(ip, |socket| {
                if ip.is_ipv6() {
                    socket.set_only_v6(v6only).expect("v6only");
                }
            });
            let parking = open(&address, None).expect("open");
            assert_eq!(parking.unset, [""; 0]);
            let facts = facts(&parking.socket);
            assert_eq!(facts.cookie, parking.cookie);
            assert!(facts.listening && facts.reuseport);
            assert_eq!(facts.address, Some(address));
        }
    }

    #[test]
    fn who_does_not_share_the_port_is_in_the_way() {
        let alone = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        let address = Address::plain(alone.local_addr().expect("an address"));
        let error = open(&address, None).expect_err("in the way");
        assert_eq!(error.to_string(), "bind for a parking listener failed");
        assert_eq!(error.io_error().kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn it_is_set_as_the_server_is() {
        let ip = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let (server, address) = server(ip, |socket| {
            socket.set_tcp_nodelay(true).expect("TCP_NODELAY");
            socket.set_keepalive(true).expect("SO_KEEPALIVE");
            socket.set_recv_buffer_size(10_000).expect("SO_RCVBUF");
            socket.set_tcp_mss(1000).expect("TCP_MAXSEG");
            let save_syn = 1i32.to_ne_bytes();
            set_raw(socket.as_fd(), IPPROTO_TCP, libc::TCP_SAVE_SYN, &save_syn)
                .expect("TCP_SAVE_SYN");
        });
        let template = Template::of(server.as_fd());
        let parking = open(&address, Some(&template)).expect("open");
        assert_eq!(parking.unset, [""; 0]);
        assert_eq!(Template::of(parking.socket.as_fd()), template);
        let plain = open(&address, None).expect("open");
        assert_ne!(Template::of(plain.socket.as_fd()), template);
    }

    #[test]
    fn its_queue_is_counted() {
        let ip = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let (listener, address) = server(ip, |_| {});
        let empty = Queue {
            queued: 0,
            backlog: 16,
        };
        assert_eq!(queue(listener.as_fd()).expect("queue"), empty);
        let _client = TcpStream::connect(address.socket).expect("connect");
        assert_eq!(queue(listener.as_fd()).expect("queue").queued, 1);
    }
}
