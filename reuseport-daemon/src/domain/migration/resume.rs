//! Finishing or undoing what an earlier daemon had begun.

use super::{End, Phase, end::end};
use crate::domain::{Decision, InstanceState, Service, Wait, steer};

/// Decides how to go on with a service as an earlier daemon left it, killed at any point.
///
/// A migration that was only staged goes back, one that had switched goes on, whatever part of
/// either had been done: both point the tables where they belong, which is nothing to do where they
/// point there already.
#[must_use]
pub fn resume(service: &Service) -> Decision {
    let mut decision = Decision::unchanged(service);
    let next = &mut decision.next;
    decision.effects = steer::clear_orphans(next);
    let Some(migration) = service.migration.clone() else {
        decision.effects.extend(steer::steer_to_serving(next));
        return decision;
    };
    match migration.phase {
        Phase::Staged => decision.then(|service| end(service, End::RolledBack)),
        Phase::Switched | Phase::Handshakes { .. } | Phase::Settling | Phase::Queues { .. } => {
            decision.effects.extend(steer::steer(next, &[migration.to]));
            for generation in migration.from {
                decision.effects.extend(steer::set_state(
                    next,
                    generation,
                    InstanceState::Draining,
                ));
            }
            decision
                .effects
                .extend(steer::set_state(next, migration.to, InstanceState::Serving));
            decision.wait = Some(Wait::Grace);
            decision
        }
        Phase::Retiring => {
            decision.wait = Some(Wait::Retirement(migration.options.retire));
            decision
        }
    }
}
