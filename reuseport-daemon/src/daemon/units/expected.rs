//! The units of a service that run and do not listen yet, or not for long.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::watch::Watch;
use crate::sys::cgroup::Cgroup;

/// How long a unit that is registered is still looked at: a server opens its listeners one after the
/// other.
const OPENING: Duration = Duration::from_secs(5);

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
    /// When that began: at its start, and anew when it is registered.
    pub(super) since: Instant,
    /// Tells a pause that a later event has made pointless.
    pub(super) number: u64,
    /// Whether it is registered, and looked at for what else it opens.
    registered: bool,
    /// Why it could not be registered, the last time.
    pub(super) trouble: Option<String>,
}

impl Expected {
    /// It has been started, or something else has happened to it. `number` tells this from earlier times.
    pub(super) fn from_now(number: u64) -> Self {
        Self {
            since: Instant::now(),
            number,
            registered: false,
            trouble: None,
        }
    }

    /// Takes note that it is registered, with all that it has. Whether it has had the time to open what
    /// it will.
    pub(super) fn note_registered(&mut self) -> bool {
        if !self.registered {
            *self = Self {
                registered: true,
                ..Self::from_now(self.number)
            };
        }
        self.since.elapsed() >= OPENING
    }
}

impl Units {
    /// Has every unit that runs looked at.
    pub(in crate::daemon) fn look_again(&self) {
        if let Some(watch) = &self.watch {
            watch.look_again();
        }
    }
}
