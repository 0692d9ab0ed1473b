//! What a process's end means for its service.

use super::{End, Phase, end::end};
use crate::domain::{Decision, Generation, InstanceState, Service, steer};

/// Decides what follows when an instance's process has ended. Its sockets are closed by then, and
/// the kernel has emptied their slots.
#[must_use]
pub fn process_ended(service: &Service, generation: Generation) -> Decision {
    let Some(instance) = service.instances.get(&generation) else {
        return Decision::unchanged(service);
    };
    let served = instance.state == InstanceState::Serving;
    let mut decision = Decision::unchanged(service);
    let next = &mut decision.next;
    if !served {
        decision.effects = steer::forget(next, generation);
        return settle(decision);
    }
    decision.effects = steer::clear_slots(next, generation);
    decision
        .effects
        .extend(steer::set_state(next, generation, InstanceState::Gone));
    if let Some(migration) = &next.migration
        && migration.phase != Phase::Retiring
        && migration.can_go_back(next)
    {
        return decision.then(|service| end(service, End::RolledBack));
    }
    if let Some(heir) = heir(next) {
        decision
            .effects
            .extend(steer::set_state(next, heir, InstanceState::Serving));
    }
    let mut steering = steer::steer_to_serving(next);
    decision.effects.append(&mut steering);
    settle(decision)
}

/// Who takes over from a serving instance that has ended: the newest that stands by, or else the
/// newest that was moved away from and still listens, to which the kernel's hash would send
/// connections anyway.
fn heir(service: &Service) -> Option<Generation> {
    if service.in_state(InstanceState::Serving).next().is_some() {
        return None;
    }
    service
        .in_state(InstanceState::Standby)
        .next_back()
        .or_else(|| service.in_state(InstanceState::Retired).next_back())
        .or_else(|| service.in_state(InstanceState::Draining).next_back())
}

/// A migration whose old instances have all ended has nothing left to drain or to retire.
fn settle(decision: Decision) -> Decision {
    let waits_for_nobody = decision.next.migration.is_some()
        && decision
            .next
            .in_state(InstanceState::Draining)
            .next()
            .is_none();
    if waits_for_nobody {
        decision.then(|service| end(service, End::Done))
    } else {
        decision
    }
}
