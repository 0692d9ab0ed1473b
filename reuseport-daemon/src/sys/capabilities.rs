//! What this process may do.

use std::{fs, io};

use thiserror::Error;

/// A capability that some part of this program's work needs.
/// <https://elixir.bootlin.com/linux/v6.18/source/include/uapi/linux/capability.h>
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Capability {
    /// Parking listeners that belong to the service's user.
    Chown = 0,
    /// `/proc/PID/fd` of other users.
    DacReadSearch = 2,
    /// Signals to processes of other users.
    Kill = 5,
    /// Parking listeners on ports below 1024.
    NetBindService = 10,
    /// `tcp_migrate_req` of a network namespace; keys and marks of listeners.
    NetAdmin = 12,
    /// `pidfd_getfd` and descriptor links of processes of other users.
    SysPtrace = 19,
    /// Entering network namespaces, and mounting a bpffs.
    SysAdmin = 21,
    /// Programs that log.
    Perfmon = 38,
    /// Programs, maps and pins.
    Bpf = 39,
}

impl Capability {
    /// Every capability that this program makes use of.
    pub const ALL: [Self; 9] = [
        Self::Bpf,
        Self::Perfmon,
        Self::NetAdmin,
        Self::SysPtrace,
        Self::DacReadSearch,
        Self::Chown,
        Self::NetBindService,
        Self::SysAdmin,
        Self::Kill,
    ];

    /// The kernel's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Chown => "CAP_CHOWN",
            Self::DacReadSearch => "CAP_DAC_READ_SEARCH",
            Self::Kill => "CAP_KILL",
            Self::NetBindService => "CAP_NET_BIND_SERVICE",
            Self::NetAdmin => "CAP_NET_ADMIN",
            Self::SysPtrace => "CAP_SYS_PTRACE",
            Self::SysAdmin => "CAP_SYS_ADMIN",
            Self::Perfmon => "CAP_PERFMON",
            Self::Bpf => "CAP_BPF",
        }
    }
}

/// The capabilities could not be read.
#[derive(Debug, Error)]
pub enum CapabilitiesError {
    /// No `/proc`, or no access to it.
    #[error("/proc/thread-self/status cannot be read")]
    Read(#[source] io::Error),
    /// The file is not what it was.
    #[error("/proc/thread-self/status has no CapEff line with a hexadecimal number")]
    Format,
}

/// A set of capabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities(u64);

impl Capabilities {
    /// The effective set of the calling thread.
    ///
    /// # Errors
    ///
    /// When `/proc` is not there or not readable.
    pub fn effective() -> Result<Self, CapabilitiesError> {
        let status =
            fs::read_to_string("/proc/thread-self/status").map_err(CapabilitiesError::Read)?;
        Self::parse(&status).ok_or(CapabilitiesError::Format)
    }

    /// Whether `capability` is in the set.
    #[must_use]
    pub fn has(self, capability: Capability) -> bool {
        self.0 & (1 << capability as u8) != 0
    }

    /// Those of [`Capability::ALL`] that are not in the set.
    pub fn missing(self) -> impl Iterator<Item = Capability> {
        Capability::ALL
            .into_iter()
            .filter(move |capability| !self.has(*capability))
    }

    fn parse(status: &str) -> Option<Self> {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("CapEff:"))?;
        u64::from_str_radix(line.trim(), 16).ok().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_set_is_read_by_name() {
        let set = Capabilities::parse("Name:\tx\nCapPrm:\t0\nCapEff:\t0000008000081001\n")
            .expect("a set");
        for capability in [
            Capability::Bpf,
            Capability::SysPtrace,
            Capability::NetAdmin,
            Capability::Chown,
        ] {
            assert!(set.has(capability), "{}", capability.name());
        }
        let missing: Vec<_> = set.missing().map(Capability::name).collect();
        assert_eq!(
            missing,
            [
                "CAP_PERFMON",
                "CAP_DAC_READ_SEARCH",
                "CAP_NET_BIND_SERVICE",
                "CAP_SYS_ADMIN",
                "CAP_KILL",
            ]
        );
    }

    #[test]
    fn a_file_without_the_set_is_refused() {
        assert_eq!(Capabilities::parse("CapPrm:\t0\n"), None);
        assert_eq!(Capabilities::parse("CapEff:\txyz\n"), None);
    }

    #[test]
    fn this_process_has_a_set() {
        Capabilities::effective().expect("a set");
    }
}
