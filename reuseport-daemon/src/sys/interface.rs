//! Addresses and state of a network device in the calling thread's namespace.
//!
//! By ioctl (netdevice(7)): four of them replace a netlink conversation, and an address brings the
//! route to its network along.

#![expect(unsafe_code, reason = "calls that rustix and socket2 do not have")]

use std::{
    io,
    mem::size_of,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};
use thiserror::Error;

/// Room for a device's name, its NUL included.
pub const NAME_SIZE: usize = libc::IFNAMSIZ;

/// Something about a device that the kernel would not do.
#[derive(Debug, Error)]
pub enum InterfaceError {
    /// Longer than the kernel has room for, or empty.
    #[error("{0:?} is not the name of a network device")]
    Name(String),
    /// A prefix longer than the address.
    #[error("/{prefix} is no prefix of {address}")]
    Prefix {
        /// The address.
        address: IpAddr,
        /// What was to be its prefix.
        prefix: u8,
    },
    /// A system call failed.
    #[error("{call} of {name}")]
    Call {
        /// What was asked of the kernel.
        call: &'static str,
        /// The device.
        name: String,
        /// What it said.
        source: io::Error,
    },
}

/// A network device of the namespace in which this was made.
#[derive(Debug)]
pub struct Interface {
    name: String,
    index: i32,
    v4: OwnedFd,
}

impl Interface {
    /// The device of that name in the calling thread's namespace.
    ///
    /// # Errors
    ///
    /// [`InterfaceError::Call`] with `ENODEV` where there is none.
    pub fn named(name: &str) -> Result<Self, InterfaceError> {
        let failed = |call, source: rustix::io::Errno| InterfaceError::Call {
            call,
            name: name.to_owned(),
            source: source.into(),
        };
        device_name(name)?;
        let v4 = control(AddressFamily::INET).map_err(|source| failed("socket", source))?;
        let index =
            netdevice::name_to_index(&v4, name).map_err(|source| failed("SIOCGIFINDEX", source))?;
        Ok(Self {
            name: name.to_owned(),
            index: index.cast_signed(),
            v4,
        })
    }

    /// The device's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Gives the device an address, and its namespace the route to the address's network.
    ///
    /// # Errors
    ///
    /// [`InterfaceError::Prefix`]; [`InterfaceError::Call`] without `CAP_NET_ADMIN`, or where the
    /// kernel has no IPv6.
    pub fn add_address(&self, address: IpAddr, prefix: u8) -> Result<(), InterfaceError> {
        match address {
            IpAddr::V4(v4) if prefix <= 32 => self.set_v4(v4, prefix),
            IpAddr::V6(v6) if prefix <= 128 => self.add_v6(v6, prefix),
            IpAddr::V4(_) | IpAddr::V6(_) => Err(InterfaceError::Prefix { address, prefix }),
        }
    }

    /// Sets the largest packet that the device carries, in bytes.
    ///
    /// # Errors
    ///
    /// [`InterfaceError::Call`] without `CAP_NET_ADMIN`, or for a size that the device cannot have.
    pub fn set_mtu(&self, bytes: u16) -> Result<(), InterfaceError> {
        self.set(SIOCSIFMTU, &i32::from(bytes).to_ne_bytes())
    }

    /// Sets how many packets the device keeps for its reader.
    ///
    /// # Errors
    ///
    /// [`InterfaceError::Call`] without `CAP_NET_ADMIN`.
    pub fn set_queue_length(&self, packets: u16) -> Result<(), InterfaceError> {
        self.set(SIOCSIFTXQLEN, &i32::from(packets).to_ne_bytes())
    }

    /// Brings the device up.
    ///
    /// # Errors
    ///
    /// [`InterfaceError::Call`] without `CAP_NET_ADMIN`.
    pub fn bring_up(&self) -> Result<(), InterfaceError> {
        let mut request = Request::new(&self.name, &[]);
        self.call(SIOCGIFFLAGS, self.v4.as_fd(), &mut request)?;
        let [low, high, ..] = request.value;
        let flags = i16::from_ne_bytes([low, high]) | UP;
        self.set(SIOCSIFFLAGS, &flags.to_ne_bytes())
    }

    fn set_v4(&self, address: Ipv4Addr, prefix: u8) -> Result<(), InterfaceError> {
        let mask = u32::MAX
            .checked_shl(32 - u32::from(prefix))
            .unwrap_or_default();
        self.set(SIOCSIFADDR, &sockaddr_in(address))?;
        self.set(SIOCSIFNETMASK, &sockaddr_in(Ipv4Addr::from_bits(mask)))
    }

    fn add_v6(&self, address: Ipv6Addr, prefix: u8) -> Result<(), InterfaceError> {
        let socket = control(AddressFamily::INET6).map_err(|source| InterfaceError::Call {
            call: "socket",
            name: self.name.clone(),
            source: source.into(),
        })?;
        let mut request = Request6 {
            address: address.octets(),
            prefix: u32::from(prefix),
            index: self.index,
        };
        self.call(SIOCSIFADDR, socket.as_fd(), &mut request)
    }

    fn set(&self, call: Call, value: &[u8]) -> Result<(), InterfaceError> {
        let mut request = Request::new(&self.name, value);
        self.call(call, self.v4.as_fd(), &mut request)
    }

    fn call(
        &self,
        call: Call,
        socket: BorrowedFd<'_>,
        request: &mut impl DeviceRequest,
    ) -> Result<(), InterfaceError> {
        device_ioctl(socket, call.1, request).map_err(|source| InterfaceError::Call {
            call: call.0,
            name: self.name.clone(),
            source,
        })
    }
}

/// A call's name and its number.
type Call = (&'static str, libc::Ioctl);

const SIOCGIFFLAGS: Call = ("SIOCGIFFLAGS", libc::SIOCGIFFLAGS);
const SIOCSIFADDR: Call = ("SIOCSIFADDR", libc::SIOCSIFADDR);
const SIOCSIFFLAGS: Call = ("SIOCSIFFLAGS", libc::SIOCSIFFLAGS);
const SIOCSIFMTU: Call = ("SIOCSIFMTU", libc::SIOCSIFMTU);
const SIOCSIFNETMASK: Call = ("SIOCSIFNETMASK", libc::SIOCSIFNETMASK);
const SIOCSIFTXQLEN: Call = ("SIOCSIFTXQLEN", libc::SIOCSIFTXQLEN);

/// `IFF_UP`; the kernel keeps a device's first sixteen flags in a short.
const UP: i16 = 1;

/// `struct ifreq`: a name and 24 bytes of which each call reads what it needs. 32-bit kernels read
/// the first 16 of them.
///
/// <https://elixir.bootlin.com/linux/v6.18/source/include/uapi/linux/if.h#L234>
#[repr(C)]
pub(super) struct Request {
    pub(super) name: [u8; NAME_SIZE],
    value: [u8; 24],
}

const _: () = assert!(size_of::<Request>() >= size_of::<libc::ifreq>());

impl Request {
    /// `name` has passed [`device_name`] and `value` fits: both are this module's own.
    fn new(name: &str, value: &[u8]) -> Self {
        let mut request = Self {
            name: [0; NAME_SIZE],
            value: [0; 24],
        };
        request.name[..name.len()].copy_from_slice(name.as_bytes());
        request.value[..value.len()].copy_from_slice(value);
        request
    }

    /// A request about `name` that carries flags.
    pub(super) fn with_flags(name: &str, flags: i16) -> Result<Self, InterfaceError> {
        device_name(name)?;
        Ok(Self::new(name, &flags.to_ne_bytes()))
    }
}

/// `struct in6_ifreq`.
///
/// <https://elixir.bootlin.com/linux/v6.18/source/include/uapi/linux/ipv6.h#L32>
#[repr(C)]
struct Request6 {
    address: [u8; 16],
    prefix: u32,
    index: i32,
}

const _: () = assert!(size_of::<Request6>() == size_of::<libc::in6_ifreq>());

/// The argument of a device ioctl.
///
/// # Safety
///
/// The kernel may read and write any byte of the type, and each call that is given one reads and
/// writes no more than its size.
pub(super) unsafe trait DeviceRequest {}

// SAFETY: bytes only, and at least as large as `struct ifreq`.
unsafe impl DeviceRequest for Request {}

// SAFETY: bytes and integers only, laid out and sized as `struct in6_ifreq`.
unsafe impl DeviceRequest for Request6 {}

pub(super) fn device_ioctl(
    fd: BorrowedFd<'_>,
    call: libc::Ioctl,
    request: &mut impl DeviceRequest,
) -> io::Result<()> {
    // SAFETY: the calls in `sys` are those for which netdevice(7) and tun(4) name this request, and
    // whatever the kernel writes to a `DeviceRequest` is a valid value of it.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), call, &raw mut *request) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Checks that the kernel has room for a name and its NUL.
fn device_name(name: &str) -> Result<(), InterfaceError> {
    if (1..NAME_SIZE).contains(&name.len()) && !name.contains(['/', '\0']) {
        Ok(())
    } else {
        Err(InterfaceError::Name(name.to_owned()))
    }
}

/// A socket for the sake of its namespace and family.
fn control(family: AddressFamily) -> rustix::io::Result<OwnedFd> {
    socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
}

fn sockaddr_in(address: Ipv4Addr) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..2].copy_from_slice(&AddressFamily::INET.as_raw().to_ne_bytes());
    bytes[4..8].copy_from_slice(&address.octets());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_prefixes_are_checked_before_the_kernel_sees_them() {
        for name in ["", "sixteen-letters!", "a/b"] {
            let error = Interface::named(name).expect_err(name);
            assert!(matches!(error, InterfaceError::Name(_)), "{error}");
        }
        let loopback = Interface::named("lo").expect("loopback");
        let error = loopback
            .add_address(Ipv4Addr::LOCALHOST.into(), 33)
            .expect_err("33 bits");
        assert_eq!(error.to_string(), "/33 is no prefix of 127.0.0.1");
    }

    #[test]
    fn a_device_that_is_not_there() {
        let error = Interface::named("none-such").expect_err("none");
        assert_eq!(error.to_string(), "SIOCGIFINDEX of none-such");
    }
}
