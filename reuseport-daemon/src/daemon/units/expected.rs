//! The units of a service that run and do not listen yet, or not for long.

use std::{collections::BTreeMap, time::Instant};

use super::watch::Watch;
use crate::sys::cgroup::Cgroup;

/// A service's units.
#[derive(Debug, Default)]
pub(in crate::daemon) struct Units {
    pub(super) watch: Option<Watch>,
    /// Those that run and do not listen yet, or not for long.
    pub(super) expected: BTreeMap<Cgroup, Expected>,
    /// How many events there have been of units that were started.
    pub(super) count: u64,
}

/// A unit that is expected to listen.
#[derive(Debug)]
pub(super) struct Expected {
    pub(super) since: Instant,
    /// Tells a pause that a later event has made pointless.
    pub(super) number: u64,
    /// Why it could not be registered, the last time.
    pub(super) trouble: Option<String>,
}

impl Units {
    /// Has every unit that runs looked at.
    pub(in crate::daemon) fn look_again(&self) {
        if let Some(watch) = &self.watch {
            watch.look_again();
        }
    }
}
