//! The switch: everything up to the first grace period.

use super::{Migration, Options, Phase};
use crate::domain::{
    Decision, Effect, Generation, InstanceState, Label, Refusal, Service, Wait, steer,
};

/// What `migrate` asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Start {
    /// The instance serves, and nothing is left to drain.
    Unchanged,
    /// To be done.
    Begin(Box<Decision>),
}

/// Decides the switch: everything up to the grace period.
///
/// Repeating a migration that timed out drains on. A service without a serving instance gets one.
///
/// # Errors
///
/// A refusal while another migration is under way, or where the instance is unknown, is gone, or
/// does not listen any more.
pub fn migrate(service: &Service, to: &Label, options: Options) -> Result<Start, Refusal> {
    service.check_idle()?;
    let to = service.find(to)?;
    if service.instances[&to].state == InstanceState::Gone {
        return Err(Refusal::InstanceGone(service.label(to)));
    }
    if let Some(address) = service.uncovered(to) {
        return Err(Refusal::NoListener {
            label: service.label(to),
            address: address.clone(),
        });
    }
    let from = origin(service, to);
    if from.is_empty() && service.instances[&to].state == InstanceState::Serving {
        return Ok(Start::Unchanged);
    }

    let mut decision = Decision::unchanged(service);
    let next = &mut decision.next;
    let mut migration = Migration {
        from: from.clone(),
        to,
        options,
        phase: Phase::Staged,
        tally: None,
    };
    let mut effects = Vec::new();
    let mut switch = steer::steer(next, &[to]);
    if switch.is_empty() {
        // Without a table to flip there is nothing to go back from.
        migration.phase = Phase::Switched;
        effects.push(Effect::RecordMigration(Some(migration.clone())));
        effects.extend(options.hold_migrate_req());
    } else {
        // Killed before the last of these, the next start finds Staged and goes back; after it,
        // finds Switched and goes on.
        effects.push(Effect::RecordMigration(Some(migration.clone())));
        effects.extend(options.hold_migrate_req());
        effects.append(&mut switch);
        migration.phase = Phase::Switched;
        effects.push(Effect::RecordMigration(Some(migration.clone())));
    }
    next.migration = Some(migration);
    for generation in from {
        effects.extend(steer::set_state(next, generation, InstanceState::Draining));
    }
    effects.extend(steer::set_state(next, to, InstanceState::Serving));
    for gone in service.in_state(InstanceState::Gone) {
        effects.append(&mut steer::forget(next, gone));
    }
    decision.effects = effects;
    decision.wait = Some(Wait::Grace);
    Ok(Start::Begin(Box::new(decision)))
}

/// Whom `to` takes over from, and whom a rollback goes back to: whoever serves, or else the newest of
/// those that are still being drained, which is who served last.
#[must_use]
pub fn origin(service: &Service, to: Generation) -> Vec<Generation> {
    let others = |state| service.in_state(state).filter(move |it| *it != to);
    let serving: Vec<Generation> = others(InstanceState::Serving).collect();
    if serving.is_empty() {
        let draining = others(InstanceState::Draining).next_back();
        return draining.into_iter().collect();
    }
    serving
}
