//! Where servers and clients meet: network namespaces of their own, and what is between them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use thiserror::Error;

use super::{
    link::{self, Link, LinkError, LinkOptions},
    sysctl::{self, SysctlError},
};
use crate::sys::{
    interface::{Interface, InterfaceError},
    netns::{Netns, NetnsError},
};

/// The lowest port that a client gets; servers take lower ones, which no client ever holds.
pub const CLIENT_PORT_MIN: u16 = 10_000;

/// A world that cannot be made.
#[derive(Debug, Error)]
pub enum WorldError {
    /// A namespace cannot be made or entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// A setting cannot be made.
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
    /// The loopback device does not come up.
    #[error(transparent)]
    Loopback(#[from] InterfaceError),
    /// The link cannot be made.
    #[error(transparent)]
    Link(#[from] LinkError),
}

/// Servers on one side, clients on the other.
#[derive(Debug)]
pub struct World {
    // Before the namespaces, so that the link's devices go first.
    far: Option<Far>,
    server: Netns,
}

/// The clients' side where it is not the servers'.
#[derive(Debug)]
struct Far {
    link: Link,
    client: Netns,
}

impl World {
    /// Clients and servers in one namespace, joined by its loopback device.
    ///
    /// # Errors
    ///
    /// Any [`WorldError`]; it takes root.
    pub fn loopback() -> Result<Self, WorldError> {
        Ok(Self {
            far: None,
            server: side()?,
        })
    }

    /// Clients and servers in namespaces of their own, joined by a link.
    ///
    /// # Errors
    ///
    /// Any [`WorldError`]; it takes root and `/dev/net/tun`.
    pub fn linked(options: LinkOptions) -> Result<Self, WorldError> {
        let server = side()?;
        let client = side()?;
        let link = Link::between(&server, &client, options)?;
        Ok(Self {
            far: Some(Far { link, client }),
            server,
        })
    }

    /// Where servers and the daemon live.
    #[must_use]
    pub fn server(&self) -> &Netns {
        &self.server
    }

    /// Where clients live.
    #[must_use]
    pub fn client(&self) -> &Netns {
        self.far.as_ref().map_or(&self.server, |far| &far.client)
    }

    /// The link, where there is one.
    #[must_use]
    pub fn link(&self) -> Option<&Link> {
        self.far.as_ref().map(|far| &far.link)
    }

    /// Where clients reach a server over IPv4.
    #[must_use]
    pub fn v4(&self, port: u16) -> SocketAddr {
        let address = match self.far {
            Some(_) => link::SERVER.v4,
            None => Ipv4Addr::LOCALHOST,
        };
        SocketAddr::new(IpAddr::V4(address), port)
    }

    /// Where clients reach a server over IPv6.
    #[must_use]
    pub fn v6(&self, port: u16) -> SocketAddr {
        let address = match self.far {
            Some(_) => link::SERVER.v6,
            None => Ipv6Addr::LOCALHOST,
        };
        SocketAddr::new(IpAddr::V6(address), port)
    }
}

/// Settings of every namespace made here. Clients end their connections with a reset once they have
/// read everything, so ports come free at once; what does keep one is a reset that the link lost,
/// and the short FIN timeout is for that.
const SETTINGS: [(&str, &str); 6] = [
    ("net/core/somaxconn", "65535"),
    ("net/ipv4/tcp_max_syn_backlog", "65535"),
    ("net/ipv4/tcp_max_tw_buckets", "262144"),
    ("net/ipv4/tcp_fin_timeout", "5"),
    ("net/ipv6/conf/all/disable_ipv6", "0"),
    ("net/ipv6/conf/default/disable_ipv6", "0"),
];

fn side() -> Result<Netns, WorldError> {
    let netns = Netns::create()?;
    for (key, value) in SETTINGS {
        sysctl::write(&netns, key, value)?;
    }
    let ports = format!("{CLIENT_PORT_MIN} 65535");
    sysctl::write(&netns, "net/ipv4/ip_local_port_range", &ports)?;
    netns.enter(|| Interface::named("lo")?.bring_up())??;
    Ok(netns)
}
