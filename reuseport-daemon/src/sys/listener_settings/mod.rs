//! What is set on a listener besides its address, read through a duplicate of it.

mod authentication;

use std::{ffi::c_int, io, os::fd::BorrowedFd};

use rustix::net::{AddressFamily, sockopt};
use socket2::SockRef;

use super::listen_options::get;
use crate::domain::{Setting, Settings, Value};

/// The settings that are read here; the kernel's list of sockets has the others: the backlog, and
/// the keys of `TCP_MD5SIG`, which getsockopt(2) does not tell.
pub const THROUGH_A_DUPLICATE: [Setting; 13] = [
    Setting::TcpSaveSyn,
    Setting::TcpDeferAccept,
    Setting::TcpFastopen,
    Setting::IpTransparent,
    Setting::IpFreebind,
    Setting::SoMark,
    Setting::TcpUlp,
    Setting::TcpAo,
    Setting::SoRcvbuf,
    Setting::SoSndbuf,
    Setting::TcpMaxseg,
    Setting::TcpCongestion,
    Setting::SoIncomingCpu,
];

/// Reads [`THROUGH_A_DUPLICATE`]. What the kernel does not have or not tell is among the values.
#[must_use]
pub fn read(listener: BorrowedFd<'_>) -> Settings {
    THROUGH_A_DUPLICATE
        .into_iter()
        .filter_map(|setting| Some((setting, value(read_one(listener, setting)?))))
        .collect()
}

fn read_one(listener: BorrowedFd<'_>, setting: Setting) -> Option<io::Result<Value>> {
    let socket = SockRef::from(&listener);
    Some(match setting {
        Setting::TcpSaveSyn => number(tcp(listener, libc::TCP_SAVE_SYN)),
        Setting::TcpDeferAccept => number(tcp(listener, libc::TCP_DEFER_ACCEPT)),
        Setting::TcpFastopen => number(tcp(listener, libc::TCP_FASTOPEN)),
        Setting::IpTransparent => number(is_v6(listener).and_then(|v6| {
            if v6 {
                socket.ip_transparent_v6()
            } else {
                socket.ip_transparent_v4()
            }
        })),
        Setting::IpFreebind => number(is_v6(listener).and_then(|v6| {
            if v6 {
                socket.freebind_v6()
            } else {
                socket.freebind_v4()
            }
        })),
        Setting::SoMark => number(socket.mark()),
        Setting::TcpUlp => upper_layer(listener).map(Value::Name),
        Setting::TcpAo => authentication::read(listener).map(Value::Keys),
        Setting::SoRcvbuf => size(socket.recv_buffer_size()),
        Setting::SoSndbuf => size(socket.send_buffer_size()),
        Setting::TcpMaxseg => number(socket.tcp_mss()),
        Setting::TcpCongestion => sockopt::tcp_congestion(listener)
            .map(Value::Name)
            .map_err(Into::into),
        // Signed, though rustix has it unsigned: -1 is none.
        Setting::SoIncomingCpu => number(
            sockopt::socket_incoming_cpu(listener)
                .map(u32::cast_signed)
                .map_err(Into::into),
        ),
        Setting::TcpMd5sig | Setting::Backlog => return None,
    })
}

fn value(read: io::Result<Value>) -> Value {
    match read {
        Ok(value) => value,
        Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => Value::Absent,
        Err(error) => Value::Unreadable(error.to_string()),
    }
}

fn number<T: Into<i64>>(read: io::Result<T>) -> io::Result<Value> {
    Ok(Value::Number(read?.into()))
}

fn size(read: io::Result<usize>) -> io::Result<Value> {
    // The kernel has them as ints.
    Ok(Value::Number(i64::try_from(read?).unwrap_or(i64::MAX)))
}

fn is_v6(listener: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(sockopt::socket_domain(listener)? == AddressFamily::INET6)
}

fn tcp(listener: BorrowedFd<'_>, option: c_int) -> io::Result<c_int> {
    let mut number = [0; size_of::<c_int>()];
    get(listener, option, &mut number)?;
    Ok(c_int::from_ne_bytes(number))
}

/// `TCP_ULP`: a name, and nothing at all where there is none.
fn upper_layer(listener: BorrowedFd<'_>) -> io::Result<String> {
    /// `TCP_ULP_NAME_MAX`, <https://elixir.bootlin.com/linux/v6.18/source/include/net/tcp.h>
    const NAME_MAX: usize = 16;
    let mut name = [0; NAME_MAX];
    let length = get(listener, libc::TCP_ULP, &mut name)?;
    let name = name.get(..length).unwrap_or(&name);
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(String::from_utf8_lossy(name).into_owned())
}

#[cfg(test)]
mod tests;
