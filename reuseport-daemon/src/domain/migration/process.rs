//! What a process's end means for its service.

use super::{End, Phase, end::end};
use crate::domain::{Decision, Effect, Generation, InstanceState, Service, steer};

/// Decides what follows when an instance's process has ended. Its sockets are closed by then and the
/// kernel has emptied their slots, unless another process shares them: a master's workers, say, which
/// are about to end too, since nobody is left to lead them.
#[must_use]
pub fn process_ended(service: &Service, generation: Generation) -> Decision {
    let Some(instance) = service.instances.get(&generation) else {
        return Decision::unchanged(service);
    };
    let mut decision = Decision::unchanged(service);
    let next = &mut decision.next;
    match instance.state {
        InstanceState::Gone => return decision,
        InstanceState::Serving => {
            // One that is gone is kept for the operator to see. Keeping more would fill the map
            // where instances stand by and fail in turn.
            for earlier in service.in_state(InstanceState::Gone) {
                decision.effects.append(&mut steer::forget(next, earlier));
            }
            let gone = steer::set_state(next, generation, InstanceState::Gone);
            decision.effects.extend(gone);
        }
        InstanceState::Standby | InstanceState::Draining | InstanceState::Retired => {
            next.instances.remove(&generation);
            decision.effects.push(Effect::ForgetInstance(generation));
        }
    }
    let mut decision = decision.then(mend);
    // Last, so that no table names a slot without a record, and since it cannot be taken back.
    let mut clears = steer::clear_slots(&mut decision.next, generation);
    decision.effects.append(&mut clears);
    decision
}

/// Decides what a service needs after instances have ended, however far that had been seen to: a
/// migration whose target is gone goes back; somebody serves; a migration with nothing left to drain
/// is over.
pub(super) fn mend(service: &Service) -> Decision {
    if let Some(migration) = &service.migration
        && migration.phase != Phase::Retiring
        && !service.lives(migration.to)
        && migration.can_go_back(service)
    {
        return end(service, End::RolledBack);
    }
    let mut decision = Decision::unchanged(service);
    let next = &mut decision.next;
    if let Some(heir) = heir(next) {
        let serving = steer::set_state(next, heir, InstanceState::Serving);
        decision.effects.extend(serving);
    }
    decision.effects.append(&mut steer::steer_to_serving(next));
    let waits_for_nobody =
        next.migration.is_some() && next.in_state(InstanceState::Draining).next().is_none();
    if waits_for_nobody {
        decision.then(|service| end(service, End::Done))
    } else {
        decision
    }
}

/// Who takes over where nobody serves: the newest that stands by, or else the newest that was moved
/// away from, to which the kernel's hash would send connections anyway. Whoever it is must still
/// listen, and not be about to be shut down.
fn heir(service: &Service) -> Option<Generation> {
    if service.in_state(InstanceState::Serving).next().is_some() {
        return None;
    }
    let shutting_down = service.migration.as_ref().is_some_and(|migration| {
        migration.phase == Phase::Retiring && migration.options.closes_listeners()
    });
    [
        InstanceState::Standby,
        InstanceState::Retired,
        InstanceState::Draining,
    ]
    .into_iter()
    .filter(|state| !(shutting_down && *state == InstanceState::Draining))
    .find_map(|state| {
        service
            .in_state(state)
            .rfind(|it| service.uncovered(*it).is_none())
    })
}
