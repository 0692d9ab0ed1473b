//! A reuseport group as a service steers it: its slots, and its steering table.

use std::collections::{BTreeMap, HashSet};

use reuseport_common::{FIRST_SLOT, PROBES, SteeringTable};

use super::{Address, Generation, Parking, Slot, SocketCookie};

/// A reuseport group, as the service steers it.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// Where it is.
    pub address: Address,
    /// Who has which slot.
    pub slots: BTreeMap<Slot, Listener>,
    /// Which copy of the steering table the program reads.
    pub active: TableCopy,
    /// What that copy says.
    pub table: Box<SteeringTable>,
    /// How its parking listener stands. It is not on record: a daemon opens one of its own.
    pub parking: Parking,
}

/// One of the two copies of a group's steering table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TableCopy {
    /// Index 0.
    #[default]
    First,
    /// Index 1.
    Second,
}

impl TableCopy {
    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }

    /// Its index in the `STEERING` map, and the `ACTIVE` word that names it.
    #[must_use]
    pub fn index(self) -> u32 {
        match self {
            Self::First => 0,
            Self::Second => 1,
        }
    }
}

/// A listener in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Which socket it is.
    pub cookie: SocketCookie,
    /// Whose it is.
    pub generation: Generation,
}

impl Group {
    /// Whether its table names anybody.
    #[must_use]
    pub fn is_served(&self) -> bool {
        *self.table != SteeringTable::EMPTY
    }

    /// Slots of an instance's listeners.
    #[must_use]
    pub fn slots_of(&self, generation: Generation) -> Vec<Slot> {
        self.slots
            .iter()
            .filter(|(_, listener)| listener.generation == generation)
            .map(|(slot, _)| *slot)
            .collect()
    }

    /// The lowest free slots, below `slots`.
    pub fn free_slots(&self, slots: u32) -> impl Iterator<Item = Slot> {
        (FIRST_SLOT..slots)
            .filter_map(|slot| u16::try_from(slot).ok())
            .map(Slot)
            .filter(|slot| !self.slots.contains_key(slot))
    }
}

/// Whether a connection may find none of an instance's listeners in a group. Neighbouring buckets name
/// different ones, and where a slot is empty the program tries [`PROBES`] more: with more of them gone,
/// those may all be, and the kernel would give the connection to any listener of the group, such as one
/// that is being drained and whose handshakes have been counted.
#[must_use]
pub(crate) fn is_deaf(ours: &HashSet<SocketCookie>, listening: &HashSet<SocketCookie>) -> bool {
    let gone = ours.difference(listening).count();
    gone == ours.len() || gone > PROBES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_deaf_where_probing_may_fail() {
        let of = |count: u64| (0..count).map(SocketCookie).collect::<HashSet<_>>();
        for (had, has, deaf) in [
            (0, 0, true),
            (1, 0, true),
            (1, 1, false),
            (5, 1, false),
            (5, 0, true),
            (6, 1, true),
            (8, 4, false),
            (8, 3, true),
        ] {
            assert_eq!(is_deaf(&of(had), &of(has)), deaf, "{has} of {had}");
        }
    }
}
