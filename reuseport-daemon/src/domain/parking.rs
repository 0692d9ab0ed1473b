//! Connections that come while nobody serves.
//!
//! Each group of a service that parks has a listener of the daemon's own, which the steering program
//! chooses only where the table leads to no live listener. How it stands follows from whether the
//! group's table names anybody:
//!
//! ```text
//!                  nobody is named            time is up: close
//!           Spare ─────────────────> Waiting ─────────────────> TimedOut
//!             ^ <── rotate: served ──   ^                          │
//!             │                         │ open: nobody is named    │
//!             ├──── open: served ─── Closed                        │
//!             └──── open: served ──────────────────────────────────┘
//!
//!   Spare ── rotate: a connection has been parked all the same ──> Spare
//!   Spare, Waiting ── the service goes away: close ──> Closed
//! ```
//!
//! To rotate is to open another parking listener, to give it the slot and to close the first one,
//! whose connections the kernel then takes to the listeners that the table names. So it is decided
//! after the table names them, as a decision of its own: a service serves whether or not it can park.

use super::{Decision, Effect, Service};

/// How a group's parking listener stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Parking {
    /// It has not been opened, or its service does not park.
    #[default]
    Closed,
    /// It is open and not needed: the table names somebody.
    Spare,
    /// It is open, and gets every connection.
    Waiting,
    /// It was closed, since nobody served for as long as connections may wait.
    TimedOut,
}

impl Parking {
    /// Whether the listener is open.
    #[must_use]
    pub fn is_open(self) -> bool {
        match self {
            Self::Spare | Self::Waiting => true,
            Self::Closed | Self::TimedOut => false,
        }
    }
}

/// Decides what a group's parking listener needs, whatever has changed. Each group is decided on by
/// itself: one that cannot park is no reason to close what others have.
#[must_use]
pub fn park(service: &Service, group: usize) -> Decision {
    let mut decision = Decision::unchanged(service);
    let parks = service.definition.park_timeout.is_some();
    let Some(it) = decision.next.groups.get_mut(group).filter(|_| parks) else {
        return decision;
    };
    let (parking, effect) = match (it.parking, it.is_served()) {
        (Parking::Closed | Parking::TimedOut, true) => {
            (Parking::Spare, Some(Effect::OpenParking { group }))
        }
        (Parking::Closed, false) => (Parking::Waiting, Some(Effect::OpenParking { group })),
        (Parking::Spare, false) => (Parking::Waiting, None),
        (Parking::Waiting, true) => (Parking::Spare, Some(Effect::RotateParking { group })),
        (Parking::Spare, true) | (Parking::Waiting | Parking::TimedOut, false) => return decision,
    };
    it.parking = parking;
    decision.effects.extend(effect);
    decision
}

/// Decides what follows when connections have been parked at a group that somebody serves.
#[must_use]
pub fn parked(service: &Service, group: usize) -> Decision {
    let mut decision = Decision::unchanged(service);
    let there = service.groups.get(group);
    if there.is_some_and(|it| it.parking == Parking::Spare && it.is_served()) {
        decision.effects.push(Effect::RotateParking { group });
    }
    decision
}

/// Decides what follows when nobody has served a group for as long as connections may wait.
#[must_use]
pub fn park_timed_out(service: &Service, group: usize) -> Decision {
    let mut decision = Decision::unchanged(service);
    let there = decision.next.groups.get_mut(group);
    if let Some(it) = there.filter(|it| it.parking == Parking::Waiting) {
        it.parking = Parking::TimedOut;
        decision.effects.push(Effect::CloseParking { group });
    }
    decision
}

/// Decides to park no more, since the service goes away.
#[must_use]
pub fn stop_parking(service: &Service) -> Decision {
    let mut decision = Decision::unchanged(service);
    for (group, it) in decision.next.groups.iter_mut().enumerate() {
        if it.parking.is_open() {
            it.parking = Parking::Closed;
            decision.effects.push(Effect::CloseParking { group });
        }
    }
    decision
}

#[cfg(test)]
mod tests;
