//! The ends of a migration.

use super::{End, Migration, Phase};
use crate::domain::{Decision, Effect, Generation, InstanceState, Refusal, Service, steer};

/// Decides to go back to the instances that served before.
///
/// # Errors
///
/// A refusal where no migration is under way, where the old listeners are being retired, or where
/// the old instances are gone.
pub fn roll_back(service: &Service) -> Result<Decision, Refusal> {
    let Some(migration) = &service.migration else {
        return Err(Refusal::NothingToRollBack(service.name().clone()));
    };
    if migration.phase == Phase::Retiring {
        return Err(Refusal::Retired(service.name().clone()));
    }
    if !migration.can_go_back(service) {
        return Err(Refusal::OriginGone(service.name().clone()));
    }
    Ok(end(service, End::RolledBack))
}

/// Ends the migration that is under way.
pub(super) fn end(service: &Service, how: End) -> Decision {
    let mut decision = Decision::unchanged(service);
    let next = &mut decision.next;
    let Some(migration) = next.migration.take() else {
        return decision;
    };
    let failed = !next.lives(migration.to);
    let mut effects = Vec::new();
    match how {
        End::Done => {
            let drained: Vec<Generation> = next.in_state(InstanceState::Draining).collect();
            for generation in drained {
                // The slots first: killed in between, the next start retires it again.
                if migration.options.closes_listeners() {
                    effects.append(&mut steer::clear_slots(next, generation));
                }
                effects.extend(steer::set_state(next, generation, InstanceState::Retired));
            }
        }
        End::RolledBack => {
            let alive: Vec<Generation> = migration
                .from
                .iter()
                .copied()
                .filter(|it| next.lives(*it))
                .collect();
            // As a migration that is only staged, it goes back if the daemon is killed meanwhile.
            if migration.phase != Phase::Staged {
                effects.push(Effect::RecordMigration(Some(Migration {
                    phase: Phase::Staged,
                    ..migration.clone()
                })));
            }
            effects.append(&mut steer::steer(next, &alive));
            for generation in alive {
                effects.extend(steer::set_state(next, generation, InstanceState::Serving));
            }
            if next.instances.get(&migration.to).map(|it| it.state) == Some(InstanceState::Serving)
            {
                effects.extend(steer::set_state(next, migration.to, InstanceState::Standby));
            }
        }
        End::TimedOut | End::NotRetired | End::Failed => {}
    }
    // Before what it was is forgotten: killed in between, the next start puts it back again.
    effects.extend(migration.options.release_migrate_req());
    effects.push(Effect::RecordMigration(None));
    decision.effects = effects;
    let how = match how {
        End::Done | End::TimedOut | End::NotRetired if failed => End::Failed,
        End::Done | End::TimedOut | End::NotRetired | End::RolledBack | End::Failed => how,
    };
    decision.end = Some((migration, how));
    decision
}
