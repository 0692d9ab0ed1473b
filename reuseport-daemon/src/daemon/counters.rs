//! Counters of the kernel and of the programs, before and after, and as they travel.

use reuseport_common::{Cause, Outcome};
use tracing::warn;

use super::managed::Managed;
use crate::{
    api::wire::{NetCounters, OutcomeCounts, Outcomes},
    steering::Runs,
    sys::netstat::TcpCounters,
};

/// What is compared with after a migration.
#[derive(Debug)]
pub(super) struct Counters {
    pub net: TcpCounters,
    pub runs: Runs,
    /// Connections that receivers have acknowledged.
    pub handed_off: u64,
}

impl Counters {
    /// Reads both kinds for a service. None where one cannot be read: the migration is worth more
    /// than its statistics.
    pub(super) fn read(managed: &Managed) -> Option<Self> {
        let net = managed.netns.enter(TcpCounters::read);
        let runs = managed.maps.runs();
        match (net, runs) {
            (Ok(Ok(net)), Ok(runs)) => Some(Self {
                net,
                runs,
                handed_off: managed.handoff.acknowledged(),
            }),
            (net, runs) => {
                warn!(service = %managed.name(), ?net, ?runs, "cannot read counters");
                None
            }
        }
    }
}

/// A network namespace's counters, as they travel.
pub(super) fn net_counters(counters: &TcpCounters) -> NetCounters {
    NetCounters {
        migrate_req_success: counters.migrated,
        migrate_req_failure: counters.not_migrated,
        listen_overflows: counters.listen_overflows,
        listen_drops: counters.listen_drops,
    }
}

/// A program's counters, as they travel.
pub(super) fn outcomes(runs: &Runs) -> Outcomes {
    let counts = |cause| OutcomeCounts {
        selected: runs.of(Outcome::Selected, cause),
        probed: runs.of(Outcome::Probed, cause),
        parked: runs.of(Outcome::Parked, cause),
        kernel: runs.of(Outcome::Kernel, cause),
    };
    Outcomes {
        new: counts(Cause::New),
        migrating: counts(Cause::Migrating),
        stray: counts(Cause::Stray),
    }
}
