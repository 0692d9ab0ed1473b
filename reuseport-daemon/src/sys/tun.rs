//! TUN devices: a network device whose packets a process reads and writes.
//!
//! <https://elixir.bootlin.com/linux/v6.18/source/Documentation/networking/tuntap.rst>

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::fs::{Mode, OFlags};
use thiserror::Error;

use super::interface::{InterfaceError, Request, device_ioctl};

/// A TUN device that cannot be made.
#[derive(Debug, Error)]
pub enum TunError {
    /// The kernel has no `tun`, or its module is not loaded.
    #[error("open /dev/net/tun")]
    Open(#[source] io::Error),
    /// Refused; it takes `CAP_NET_ADMIN` and a name that is free.
    #[error("create the TUN device {name}")]
    Create {
        /// What it was to be called.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The name cannot be one.
    #[error(transparent)]
    Name(#[from] InterfaceError),
}

/// A TUN device. It goes away when this does.
///
/// Each read gives one IP packet without any header, each write takes one; neither blocks.
#[derive(Debug)]
pub struct Tun {
    fd: OwnedFd,
}

impl Tun {
    /// Makes a device in the calling thread's namespace.
    ///
    /// # Errors
    ///
    /// Any [`TunError`].
    pub fn create(name: &str) -> Result<Self, TunError> {
        let mut request = Request::with_flags(name, FLAGS)?;
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = rustix::fs::open("/dev/net/tun", flags, Mode::empty())
            .map_err(|source| TunError::Open(source.into()))?;
        device_ioctl(fd.as_fd(), libc::TUNSETIFF, &mut request).map_err(|source| {
            TunError::Create {
                name: name.to_owned(),
                source,
            }
        })?;
        Ok(Self { fd })
    }

    /// Takes the next packet that the kernel sends into the device.
    ///
    /// # Errors
    ///
    /// `WouldBlock` where there is none.
    pub fn read(&self, packet: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(&self.fd, packet)?)
    }

    /// Lets the kernel receive a packet from the device.
    ///
    /// # Errors
    ///
    /// `EIO` while the device is down, `EINVAL` for what is no IP packet.
    pub fn write(&self, packet: &[u8]) -> io::Result<()> {
        rustix::io::write(&self.fd, packet)?;
        Ok(())
    }
}

/// IP packets, without the four bytes of protocol information in front.
#[expect(
    clippy::cast_possible_truncation,
    reason = "both are bits of the sixteen that `struct ifreq` has for flags"
)]
const FLAGS: i16 = (libc::IFF_TUN | libc::IFF_NO_PI) as i16;

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
