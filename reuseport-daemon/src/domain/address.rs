//! The addresses that services listen on, in the detail in which the kernel tells groups apart.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use thiserror::Error;

/// Longest name of a network device (`IFNAMSIZ` without its NUL).
const DEVICE_MAX: usize = 15;

/// An address of a service: one reuseport group. Written `IP:PORT`, followed by `,v6only` and
/// `,device=NAME` where the listeners set `IPV6_V6ONLY` or `SO_BINDTODEVICE`.
///
/// Sockets of which any of these differ never share a group (`inet_reuseport_add_sock`,
/// <https://elixir.bootlin.com/linux/v6.18/source/net/ipv4/inet_hashtables.c>).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// Address and port; the port is never 0, and flow information and scope are 0.
    pub socket: SocketAddr,
    /// Whether `IPV6_V6ONLY` is set; false for IPv4.
    pub v6only: bool,
    /// `SO_BINDTODEVICE`.
    pub device: Option<String>,
}

/// Text that is not an address to listen on.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AddressError {
    /// Not `IP:PORT`.
    #[error("{0:?} is not IP:PORT, such as 0.0.0.0:7777 or [::]:7777")]
    Syntax(String),
    /// A service needs a port that clients can name.
    #[error("port 0 names no port")]
    NoPort,
    /// Something after the comma that means nothing.
    #[error("unknown option {0:?}; there are v6only and device=NAME")]
    Option(String),
    /// `v6only` makes no sense there.
    #[error("v6only goes with an IPv6 address")]
    NotV6,
    /// Not a name that a network device can have.
    #[error("{0:?} is not the name of a network device")]
    Device(String),
}

impl Address {
    /// An address without options.
    #[must_use]
    pub fn plain(socket: SocketAddr) -> Self {
        Self {
            socket,
            v6only: false,
            device: None,
        }
    }

    /// Whether a connection to `self` would reach `other`'s sockets if `self` had none: `other` is
    /// a wildcard of the same port whose family takes the address in.
    #[must_use]
    pub fn is_shadow_of(&self, other: &Self) -> bool {
        let more_specific = match (self.socket.ip(), other.socket.ip()) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => theirs.is_unspecified() && ours != theirs,
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => theirs.is_unspecified() && ours != theirs,
            (IpAddr::V4(_), IpAddr::V6(theirs)) => theirs.is_unspecified() && !other.v6only,
            (IpAddr::V6(_), IpAddr::V4(_)) => false,
        };
        let bound_closer = self.socket.ip() == other.socket.ip()
            && self.device.is_some()
            && other.device.is_none();
        self.socket.port() == other.socket.port() && (more_specific || bound_closer)
    }

    /// Whether a connection to `local` can be one of this group's listeners'. An IPv4 address is
    /// given as such, also where a dual-stack socket takes it in, be it that socket's own address.
    #[must_use]
    pub fn takes(&self, local: SocketAddr) -> bool {
        let ip = match (self.socket.ip().to_canonical(), local.ip()) {
            (IpAddr::V6(ours), IpAddr::V4(_)) => ours.is_unspecified() && !self.v6only,
            (ours, theirs) => {
                ours == theirs || (ours.is_unspecified() && ours.is_ipv4() == theirs.is_ipv4())
            }
        };
        ip && self.socket.port() == local.port()
    }

    /// The name of the group's directory on the bpffs, where a dot is not allowed.
    #[must_use]
    pub fn directory(&self) -> String {
        self.to_string().replace('.', "_")
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.socket.fmt(f)?;
        if self.v6only {
            f.write_str(",v6only")?;
        }
        if let Some(device) = &self.device {
            write!(f, ",device={device}")?;
        }
        Ok(())
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let mut parts = text.split(',');
        let socket = parts.next().unwrap_or_default();
        let socket: SocketAddr = socket
            .parse()
            .map_err(|_| AddressError::Syntax(socket.to_owned()))?;
        if socket.port() == 0 {
            return Err(AddressError::NoPort);
        }
        let mut address = Self::plain(SocketAddr::new(socket.ip(), socket.port()));
        for option in parts {
            if option == "v6only" {
                if address.socket.is_ipv4() {
                    return Err(AddressError::NotV6);
                }
                address.v6only = true;
            } else if let Some(device) = option.strip_prefix("device=") {
                let valid = (1..=DEVICE_MAX).contains(&device.len())
                    && device
                        .chars()
                        .all(|c| c.is_ascii_graphic() && !"/:,".contains(c));
                if !valid {
                    return Err(AddressError::Device(device.to_owned()));
                }
                address.device = Some(device.to_owned());
            } else {
                return Err(AddressError::Option(option.to_owned()));
            }
        }
        Ok(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        text.parse().expect(text)
    }

    #[test]
    fn text_and_back() {
        for text in [
            "127.0.0.1:80",
            "[::]:7777",
            "[::]:7777,v6only",
            "0.0.0.0:1,device=eth0.7",
            "[::1]:9,v6only,device=lo",
        ] {
            assert_eq!(address(text).to_string(), text);
            assert!(!address(text).directory().contains(['.', '/']));
        }
    }

    #[test]
    fn what_is_no_address_says_why() {
        let error = |text: &str| text.parse::<Address>().expect_err(text).to_string();
        assert!(error("localhost:80").contains("not IP:PORT"));
        assert!(error("").contains("not IP:PORT"));
        assert!(error("1.2.3.4:0").contains("port 0"));
        assert!(error("1.2.3.4:5,v6only").contains("IPv6"));
        assert!(error("[::]:5,fast").contains("unknown option"));
        assert!(error("[::]:5,device=").contains("network device"));
        assert!(error("[::]:5,device=a/b").contains("network device"));
    }

    #[test]
    fn a_group_takes_its_own_connections() {
        let takes = |at: &str, local: &str| address(at).takes(local.parse().expect(local));
        assert!(takes("0.0.0.0:80", "10.0.0.1:80"));
        assert!(takes("[::]:80", "10.0.0.1:80"));
        assert!(takes("[::]:80,v6only", "[::1]:80"));
        assert!(takes("[::ffff:10.0.0.1]:80", "10.0.0.1:80"));
        assert!(takes("[::ffff:0.0.0.0]:80", "10.0.0.1:80"));
        assert!(!takes("[::ffff:10.0.0.1]:80", "10.0.0.2:80"));
        assert!(takes("10.0.0.1:80", "10.0.0.1:80"));
        assert!(!takes("[::]:80,v6only", "10.0.0.1:80"));
        assert!(!takes("0.0.0.0:80", "10.0.0.1:81"));
        assert!(!takes("0.0.0.0:80", "[::1]:80"));
        assert!(!takes("10.0.0.1:80", "10.0.0.2:80"));
    }

    #[test]
    fn a_more_specific_address_shadows() {
        let shadows = |a: &str, b: &str| address(a).is_shadow_of(&address(b));
        assert!(shadows("127.0.0.1:80", "0.0.0.0:80"));
        assert!(shadows("127.0.0.1:80", "[::]:80"));
        assert!(shadows("0.0.0.0:80", "[::]:80"));
        assert!(shadows("0.0.0.0:80,device=lo", "0.0.0.0:80"));
        assert!(!shadows("0.0.0.0:80", "127.0.0.1:80"));
        assert!(!shadows("127.0.0.1:80", "[::]:80,v6only"));
        assert!(!shadows("127.0.0.1:80", "0.0.0.0:81"));
        assert!(!shadows("0.0.0.0:80", "0.0.0.0:80"));
    }
}
