//! What is set on a listener besides its address: names, values, and how much a difference weighs.
//!
//! The kernel makes a connection after the listener that took its SYN. A server that counts on what
//! its own listener is set to can meet a connection that another one has made: the kernel's
//! documentation warns of crashes where only one of the two has `TCP_SAVE_SYN`
//! (<https://elixir.bootlin.com/linux/v6.18/source/Documentation/networking/ip-sysctl.rst>,
//! `tcp_migrate_req`). And clients of the same port meet other terms than before.
//!
//! `IPV6_V6ONLY` and `SO_BINDTODEVICE` are not among these: they are part of the address, since
//! listeners that differ in them are in different groups and never meet.

mod compare;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

use thiserror::Error;

pub use compare::{Difference, GroupSettings, SettingsWarning, compare};

/// A setting that is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Setting {
    /// `TCP_SAVE_SYN`: children keep the headers of their SYN.
    TcpSaveSyn,
    /// `TCP_DEFER_ACCEPT`: children are accepted once they have brought data.
    TcpDeferAccept,
    /// `TCP_FASTOPEN`: how many connections may wait that brought data in their SYN.
    TcpFastopen,
    /// `IP_TRANSPARENT` or `IPV6_TRANSPARENT`, which are one flag.
    IpTransparent,
    /// `IP_FREEBIND` or `IPV6_FREEBIND`, which are one flag.
    IpFreebind,
    /// `SO_MARK`, by which the answers are routed.
    SoMark,
    /// `TCP_ULP`: what runs above TCP in the kernel.
    TcpUlp,
    /// `TCP_MD5SIG`: the keys of clients whose segments must be signed (RFC 2385).
    TcpMd5sig,
    /// TCP-AO: the same by RFC 5925.
    TcpAo,
    /// `SO_RCVBUF`
    SoRcvbuf,
    /// `SO_SNDBUF`
    SoSndbuf,
    /// `TCP_MAXSEG`
    TcpMaxseg,
    /// `TCP_CONGESTION`
    TcpCongestion,
    /// `SO_INCOMING_CPU`
    SoIncomingCpu,
    /// How many connections may wait to be accepted, as `listen` was told.
    Backlog,
}

/// How much it weighs that a setting differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// Connections mean something else to the new server: the migration is refused.
    Refused,
    /// They go faster or slower: the caller is told.
    Told,
}

/// A name that no setting has.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("there is no setting {name:?}; there are {}", Setting::names())]
pub struct UnknownSetting {
    /// The name.
    pub name: String,
}

impl Setting {
    /// All of them, the weightier first.
    pub const ALL: [Self; 15] = [
        Self::TcpSaveSyn,
        Self::TcpDeferAccept,
        Self::TcpFastopen,
        Self::IpTransparent,
        Self::IpFreebind,
        Self::SoMark,
        Self::TcpUlp,
        Self::TcpMd5sig,
        Self::TcpAo,
        Self::SoRcvbuf,
        Self::SoSndbuf,
        Self::TcpMaxseg,
        Self::TcpCongestion,
        Self::SoIncomingCpu,
        Self::Backlog,
    ];

    /// Its name for `--allow-mismatch`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TcpSaveSyn => "tcp-save-syn",
            Self::TcpDeferAccept => "tcp-defer-accept",
            Self::TcpFastopen => "tcp-fastopen",
            Self::IpTransparent => "ip-transparent",
            Self::IpFreebind => "ip-freebind",
            Self::SoMark => "so-mark",
            Self::TcpUlp => "tcp-ulp",
            Self::TcpMd5sig => "tcp-md5sig",
            Self::TcpAo => "tcp-ao",
            Self::SoRcvbuf => "so-rcvbuf",
            Self::SoSndbuf => "so-sndbuf",
            Self::TcpMaxseg => "tcp-maxseg",
            Self::TcpCongestion => "tcp-congestion",
            Self::SoIncomingCpu => "so-incoming-cpu",
            Self::Backlog => "backlog",
        }
    }

    /// How much a difference weighs.
    #[must_use]
    pub fn weight(self) -> Weight {
        match self {
            Self::TcpSaveSyn
            | Self::TcpDeferAccept
            | Self::TcpFastopen
            | Self::IpTransparent
            | Self::IpFreebind
            | Self::SoMark
            | Self::TcpUlp
            | Self::TcpMd5sig
            | Self::TcpAo => Weight::Refused,
            Self::SoRcvbuf
            | Self::SoSndbuf
            | Self::TcpMaxseg
            | Self::TcpCongestion
            | Self::SoIncomingCpu
            | Self::Backlog => Weight::Told,
        }
    }

    fn names() -> String {
        Self::ALL.map(Self::as_str).join(", ")
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Setting {
    type Err = UnknownSetting;

    fn from_str(name: &str) -> Result<Self, UnknownSetting> {
        let unknown = || UnknownSetting {
            name: name.to_owned(),
        };
        let mut all = Self::ALL.into_iter();
        all.find(|it| it.as_str() == name).ok_or_else(unknown)
    }
}

/// What a setting is set to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// The kernel has no such setting.
    Absent,
    /// It may have, and does not tell; why.
    Unreadable(String),
    /// A number, or 0 and 1 for a flag.
    Number(i64),
    /// A name; empty for none.
    Name(String),
    /// Keys, and rules that go with them.
    Keys(BTreeSet<Key>),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("unknown to the kernel"),
            Self::Unreadable(why) => write!(f, "unreadable: {why}"),
            Self::Number(number) => number.fmt(f),
            Self::Name(name) if name.is_empty() => f.write_str("none"),
            Self::Name(name) => f.write_str(name),
            Self::Keys(keys) if keys.is_empty() => f.write_str("no key"),
            Self::Keys(keys) => {
                let peers: Vec<&str> = keys.iter().map(|it| it.peer.as_str()).collect();
                let noun = if keys.len() == 1 { "a key" } else { "keys" };
                write!(f, "{noun} for {}", peers.join(" and "))
            }
        }
    }
}

/// A key that a client's segments are signed with. It is compared and never shown.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Whose segments: an address and the length of its prefix.
    pub peer: String,
    /// Everything else about it, the secret included.
    pub rest: Vec<u8>,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { peer, rest: _ } = self;
        f.debug_struct("Key")
            .field("peer", peer)
            .finish_non_exhaustive()
    }
}

/// What a listener is set to.
pub type Settings = BTreeMap<Setting, Value>;
