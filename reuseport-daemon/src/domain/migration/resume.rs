//! Finishing or undoing what an earlier daemon had begun.

use super::{End, Phase, end::end, process::mend, start::origin};
use crate::domain::{Decision, Effect, Generation, InstanceState, Service, Wait, steer};

/// Decides how to go on with a service as an earlier daemon left it, killed at any point. To be
/// decided before anything else is: other decisions rely on what it sets right.
///
/// A migration that was only staged goes back, one that had switched goes on, whatever part of
/// either had been done: both point the tables where they belong, which is nothing to do where they
/// point there already. The same goes for what had been left undone when a process ended.
#[must_use]
pub fn resume(service: &Service) -> Decision {
    let mut service = service.clone();
    if let Some(mut migration) = service.migration.take() {
        // What is written down does not tell it apart from those that were drained before.
        migration.from = origin(&service, migration.to);
        service.migration = Some(migration);
    }
    let mut decision = match service.migration.as_ref().map(|it| it.phase) {
        None | Some(Phase::Retiring) => mend(&service),
        Some(Phase::Staged) => end(&service, End::RolledBack),
        Some(
            Phase::Switched | Phase::Handshakes { .. } | Phase::Settling | Phase::Queues { .. },
        ) => go_on(&service),
    };
    // After the tables: some may have named these.
    let mut clears = clear_leftovers(&mut decision.next);
    decision.effects.append(&mut clears);
    decision.wait = decision.next.migration.as_ref().map(|migration| {
        if migration.phase == Phase::Retiring {
            Wait::Retirement(migration.options)
        } else {
            Wait::Grace
        }
    });
    decision
}

/// Draining starts over with a grace period and a snapshot, which is always right.
fn go_on(service: &Service) -> Decision {
    let mut decision = Decision::unchanged(service);
    let next = &mut decision.next;
    let Some(migration) = &mut next.migration else {
        return decision;
    };
    migration.phase = Phase::Switched;
    migration.tally = None;
    let (from, to) = (migration.from.clone(), migration.to);
    decision
        .effects
        .extend(migration.options.hold_migrate_req());
    if next.lives(to) {
        for generation in from {
            let draining = steer::set_state(next, generation, InstanceState::Draining);
            decision.effects.extend(draining);
        }
        let serving = steer::set_state(next, to, InstanceState::Serving);
        decision.effects.extend(serving);
    }
    decision.then(mend)
}

/// Empties the slots of instances that are gone, or that were not yet or are no longer on record.
fn clear_leftovers(next: &mut Service) -> Vec<Effect> {
    let mut left: Vec<Generation> = next
        .groups
        .iter()
        .flat_map(|group| group.slots.values())
        .map(|listener| listener.generation)
        .filter(|generation| !next.lives(*generation))
        .collect();
    left.sort_unstable();
    left.dedup();
    left.into_iter()
        .flat_map(|generation| steer::clear_slots(next, generation))
        .collect()
}
