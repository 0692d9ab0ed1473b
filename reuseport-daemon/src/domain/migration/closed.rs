//! What it means that an instance closes listeners and lives on.

use std::collections::BTreeSet;

use super::process::mend;
use crate::domain::{Decision, Effect, InstanceState, Service, Slot, SocketCookie, steer};

/// Decides what follows where instances have closed these listeners. Those that are left share what the
/// closed ones had. An instance that has closed all of its own, as servers do that end gracefully, serves
/// no more and is drained, whether or not it has ended. While a migration is under way all is let be:
/// that has its own ways with instances that come and go.
#[must_use]
pub fn listeners_closed(service: &Service, closed: &BTreeSet<SocketCookie>) -> Decision {
    let mut decision = Decision::unchanged(service);
    if service.migration.is_some() {
        return decision;
    }
    let next = &mut decision.next;
    let mut clears = Vec::new();
    for (generation, instance) in &service.instances {
        let before = clears.len();
        for (index, group) in next.groups.iter_mut().enumerate() {
            let is_closed = |slot: &Slot| closed.contains(&group.slots[slot].cookie);
            let ours = group.slots_of(*generation).into_iter();
            for slot in ours.filter(is_closed).collect::<Vec<_>>() {
                group.slots.remove(&slot);
                clears.push(Effect::Clear { group: index, slot });
            }
        }
        let all = clears.len() > before && next.listeners_of(*generation).next().is_none();
        match instance.state {
            InstanceState::Serving | InstanceState::Draining if all => {
                let retired = steer::set_state(next, *generation, InstanceState::Retired);
                decision.effects.extend(retired);
            }
            InstanceState::Standby
            | InstanceState::Serving
            | InstanceState::Draining
            | InstanceState::Retired
            | InstanceState::Gone => {}
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
