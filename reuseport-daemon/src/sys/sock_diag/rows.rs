//! One socket as the kernel reports it, and the question that it answers.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::AsFd,
};

use netlink_packet_core::{DecodeError, NlasIterator, parse_u8};
use netlink_packet_sock_diag::{
    constants::{AF_INET, AF_INET6, INET_DIAG_SHUTDOWN, INET_DIAG_SKV6ONLY, IPPROTO_TCP},
    inet::{ExtensionFlags, InetRequest, InetResponseHeader, SocketId, StateFlags},
};
use rustix::{io::Errno, net::netdevice::index_to_name};

use super::{Handshake, ListenerRow, SockDiagError};
use crate::{
    domain::{Address, SocketCookie},
    sys::socket::VANISHED_DEVICE,
};

/// Both, since the kernel dumps one family at a time.
pub(super) const FAMILIES: [u8; 2] = [AF_INET, AF_INET6];

/// A socket: the fixed part, and the bytes of the attributes after it.
#[derive(Debug)]
pub(super) struct Row<'a> {
    pub(super) header: InetResponseHeader,
    pub(super) attributes: &'a [u8],
}

/// The question for the TCP sockets of a family in certain states, on a local port or on any. The
/// kernel does the choosing.
pub(super) fn request(family: u8, states: StateFlags, port: Option<u16>) -> InetRequest {
    InetRequest {
        family,
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::empty(),
        states,
        socket_id: SocketId {
            source_port: port.unwrap_or(0),
            ..SocketId::new_v4()
        },
    }
}

/// A listener whose device is still a number.
pub(super) struct Listener {
    pub(super) cookie: SocketCookie,
    socket: SocketAddr,
    v6only: bool,
    device: u32,
    inode: u32,
    uid: u32,
    accept_queue: u32,
    backlog: u32,
}

impl Listener {
    pub(super) fn from(row: &Row<'_>) -> Result<Self, DecodeError> {
        let id = &row.header.socket_id;
        let mut v6only = false;
        for attribute in NlasIterator::new(row.attributes) {
            let attribute = attribute?;
            if attribute.kind() == INET_DIAG_SKV6ONLY {
                v6only = parse_u8(attribute.value())? != 0;
            }
        }
        Ok(Self {
            cookie: cookie(id.cookie),
            socket: SocketAddr::new(id.source_address, id.source_port),
            v6only: v6only && id.source_address.is_ipv6(),
            device: id.interface_id,
            inode: row.header.inode,
            uid: row.header.uid,
            accept_queue: row.header.recv_queue,
            backlog: row.header.send_queue,
        })
    }

    /// Names the device, as it is called in the namespace of `socket`.
    pub(super) fn resolve(self, socket: impl AsFd) -> Result<ListenerRow, SockDiagError> {
        let device = match self.device {
            0 => None,
            index => match index_to_name(socket, index) {
                Ok(name) => Some(name),
                Err(Errno::NODEV) => Some(VANISHED_DEVICE.to_owned()),
                Err(error) => {
                    return Err(SockDiagError::Call {
                        call: "ioctl(SIOCGIFNAME)",
                        source: io::Error::from(error),
                    });
                }
            },
        };
        Ok(ListenerRow {
            address: Address {
                socket: self.socket,
                v6only: self.v6only,
                device,
            },
            inode: self.inode,
            uid: self.uid,
            cookie: self.cookie,
            accept_queue: self.accept_queue,
            backlog: self.backlog,
        })
    }
}

/// Whether a row in state `SYN_RECV` is of a socket, as the child of a Fast Open is, and not of a mere
/// request for one: only sockets have the attribute (`inet_diag_msg_attrs_fill`,
/// <https://elixir.bootlin.com/linux/v6.12/source/net/ipv4/inet_diag.c>).
pub(super) fn is_socket(row: &Row<'_>) -> Result<bool, DecodeError> {
    for attribute in NlasIterator::new(row.attributes) {
        if attribute?.kind() == INET_DIAG_SHUTDOWN {
            return Ok(true);
        }
    }
    Ok(false)
}

pub(super) fn handshake(row: &Row<'_>) -> Handshake {
    let id = &row.header.socket_id;
    let plain = |ip: IpAddr, port| SocketAddr::new(ip.to_canonical(), port);
    Handshake {
        local: plain(id.source_address, id.source_port),
        remote: plain(id.destination_address, id.destination_port),
        cookie: cookie(id.cookie),
        interface: id.interface_id,
    }
}

/// The question for one socket. Where none has the addresses, the kernel comes up with the listener
/// there, and drops it since its cookie differs (`inet_diag_find_one_icsk`,
/// <https://elixir.bootlin.com/linux/v6.12/source/net/ipv4/inet_diag.c>).
pub(super) fn lookup(handshake: &Handshake) -> InetRequest {
    let family = match handshake.local {
        SocketAddr::V4(_) => AF_INET,
        SocketAddr::V6(_) => AF_INET6,
    };
    InetRequest {
        socket_id: SocketId {
            source_port: handshake.local.port(),
            destination_port: handshake.remote.port(),
            source_address: handshake.local.ip(),
            destination_address: handshake.remote.ip(),
            interface_id: handshake.interface,
            cookie: words(handshake.cookie).to_ne_bytes(),
        },
        ..request(family, StateFlags::all(), None)
    }
}

/// Two words in the machine's byte order, the lower one first.
/// <https://elixir.bootlin.com/linux/v6.18/source/net/core/sock_diag.c>
pub(super) fn cookie(words: [u8; 8]) -> SocketCookie {
    SocketCookie(swapped_on_big_endian(u64::from_ne_bytes(words)))
}

fn words(cookie: SocketCookie) -> u64 {
    swapped_on_big_endian(cookie.0)
}

fn swapped_on_big_endian(number: u64) -> u64 {
    if cfg!(target_endian = "big") {
        number.rotate_left(32)
    } else {
        number
    }
}
