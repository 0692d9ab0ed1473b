//! The kernel's own TCP counters.

use std::{fs, io};

use thiserror::Error;

/// Per network namespace; `thread-self`, since the thread may have joined another one.
const FILE: &str = "/proc/thread-self/net/netstat";

/// The counters could not be read.
#[derive(Debug, Error)]
pub enum NetstatError {
    /// No `/proc`, or no access to it.
    #[error("{FILE} cannot be read")]
    Read(#[source] io::Error),
    /// The counters are not there.
    #[error("{FILE} has no number for {0}")]
    Format(&'static str),
}

/// Counters of the calling thread's network namespace, or their growth.
///
/// The first two are missing on kernels that cannot move a listener's connections (before 5.14),
/// the sysctl's presence notwithstanding.
/// <https://elixir.bootlin.com/linux/v6.18/source/net/ipv4/proc.c>
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpCounters {
    /// `TCPMigrateReqSuccess`: connections that went on to another listener.
    pub migrated: Option<u64>,
    /// `TCPMigrateReqFailure`: connections for which the kernel found no other listener.
    pub not_migrated: Option<u64>,
    /// `ListenOverflows`: connections that found the accept queue full.
    pub listen_overflows: u64,
    /// `ListenDrops`: connections that a listener dropped for any reason, a full queue included.
    pub listen_drops: u64,
}

impl TcpCounters {
    /// The counters as they are now.
    ///
    /// # Errors
    ///
    /// When `/proc` is not there or not readable.
    pub fn read() -> Result<Self, NetstatError> {
        Self::parse(&fs::read_to_string(FILE).map_err(NetstatError::Read)?)
    }

    /// How much each counter has grown since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let grown = |now: u64, then: u64| now.wrapping_sub(then);
        let maybe = |now: Option<u64>, then: Option<u64>| Some(grown(now?, then?));
        Self {
            migrated: maybe(self.migrated, earlier.migrated),
            not_migrated: maybe(self.not_migrated, earlier.not_migrated),
            listen_overflows: grown(self.listen_overflows, earlier.listen_overflows),
            listen_drops: grown(self.listen_drops, earlier.listen_drops),
        }
    }

    /// Every group of counters takes two lines: the names, then the numbers.
    fn parse(text: &str) -> Result<Self, NetstatError> {
        let mut lines = text
            .lines()
            .filter_map(|line| line.strip_prefix("TcpExt:"))
            .map(str::split_whitespace);
        let names = lines.next().into_iter().flatten();
        let numbers = lines.next().into_iter().flatten();
        let counters: Vec<(&str, &str)> = names.zip(numbers).collect();
        let counter = |name: &str| {
            let (_, number) = counters.iter().find(|(found, _)| *found == name)?;
            number.parse().ok()
        };
        let required = |name| counter(name).ok_or(NetstatError::Format(name));
        Ok(Self {
            migrated: counter("TCPMigrateReqSuccess"),
            not_migrated: counter("TCPMigrateReqFailure"),
            listen_overflows: required("ListenOverflows")?,
            listen_drops: required("ListenDrops")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINUX_6: &str = "\
TcpExt: SyncookiesSent ListenOverflows ListenDrops TCPMigrateReqSuccess TCPMigrateReqFailure
TcpExt: 1 2 3 18446744073709551615 5
IpExt: InNoRoutes ListenDrops
IpExt: 7 8
";
    const LINUX_5_10: &str = "\
TcpExt: SyncookiesSent ListenOverflows ListenDrops
TcpExt: 1 2 3
";

    #[test]
    fn the_counters_are_found_by_name() {
        assert_eq!(
            TcpCounters::parse(LINUX_6).expect("counters"),
            TcpCounters {
                migrated: Some(u64::MAX),
                not_migrated: Some(5),
                listen_overflows: 2,
                listen_drops: 3,
            }
        );
    }

    #[test]
    fn an_old_kernel_lacks_two() {
        let old = TcpCounters::parse(LINUX_5_10).expect("counters");
        assert_eq!((old.migrated, old.not_migrated), (None, None));
        assert_eq!(old.since(&old).listen_drops, 0);
    }

    #[test]
    fn growth_outlives_a_wrap() {
        let before = TcpCounters::parse(LINUX_6).expect("counters");
        let after = TcpCounters {
            migrated: Some(1),
            listen_drops: 10,
            ..before
        };
        let grown = after.since(&before);
        assert_eq!(grown.migrated, Some(2));
        assert_eq!(grown.not_migrated, Some(0));
        assert_eq!(grown.listen_drops, 7);
    }

    #[test]
    fn a_file_without_them_is_refused() {
        for text in [
            "",
            "TcpExt: ListenOverflows\n",
            "TcpExt: ListenOverflows\nTcpExt: x\n",
        ] {
            assert!(matches!(
                TcpCounters::parse(text),
                Err(NetstatError::Format("ListenOverflows"))
            ));
        }
    }

    #[test]
    fn this_namespace_has_them() {
        TcpCounters::read().expect("counters");
    }
}
