//! What it means that an instance closes listeners and lives on.

use std::collections::BTreeSet;

use super::process::mend;
use crate::domain::{Decision, Effect, InstanceState, Service, Slot, SocketCookie, steer};

/// Decides what follows where an instance that serves has closed listeners, all but those in
/// `listening`. The others share what these had. One that has closed all of them, as servers do that
/// end gracefully, serves no more, whether or not it has ended. While a migration is under way it is
/// let be: that has its own ways with instances that come and go.
#[must_use]
pub fn listeners_closed(service: &Service, listening: &BTreeSet<SocketCookie>) -> Decision {
    let mut decision = Decision::unchanged(service);
    if service.migration.is_some() {
        return decision;
    }
    let next = &mut decision.next;
    let mut clears = Vec::new();
    for generation in service.in_state(InstanceState::Serving) {
        for (index, group) in next.groups.iter_mut().enumerate() {
            let closed = |slot: &Slot| !listening.contains(&group.slots[slot].cookie);
            let ours = group.slots_of(generation).into_iter();
            for slot in ours.filter(closed).collect::<Vec<_>>() {
                group.slots.remove(&slot);
                clears.push(Effect::Clear { group: index, slot });
            }
        }
        if next.listeners_of(generation).next().is_none() {
            let retired = steer::set_state(next, generation, InstanceState::Retired);
            decision.effects.extend(retired);
        }
    }
    if clears.is_empty() {
        return Decision::unchanged(service);
    }
    let mut decision = decision.then(mend);
    // Last, so that no table names a slot without a record, and since it cannot be taken back.
    decision.effects.append(&mut clears);
    decision
}
