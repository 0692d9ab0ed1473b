//! One test per edge of the state machine, and per edge that is refused.

mod advance;
mod end;
mod migrate_req;
mod process;
mod random;
mod resume;
mod start;

use std::time::Duration;

use super::{Observation, Options, Phase};
use crate::domain::testing::{World, keep};

const PAUSE: Duration = Duration::from_millis(2);

const EMPTY: Observation = Observation::Reading {
    handshakes: 0,
    queued: 0,
};

fn reading(handshakes: u64, queued: u64) -> Observation {
    Observation::Reading { handshakes, queued }
}

/// Every phase that can be seen between two decisions, and what leads there.
const PHASES: [(Phase, &[Observation]); 5] = [
    (Phase::Switched, &[]),
    (
        Phase::Handshakes { pause: PAUSE },
        &[Observation::GraceOver],
    ),
    (Phase::Settling, &[Observation::GraceOver, EMPTY]),
    (
        Phase::Queues { pause: PAUSE },
        &[Observation::GraceOver, EMPTY, Observation::GraceOver],
    ),
    (
        Phase::Retiring,
        &[Observation::GraceOver, EMPTY, Observation::GraceOver, EMPTY],
    ),
];

/// `world` with a migration to `to` that has come as far as `phase`.
fn migrating(mut world: World, to: &str, options: Options, phase: Phase) -> World {
    assert_eq!(world.migrate(to, options), Ok(true));
    let (_, way) = PHASES
        .iter()
        .find(|(it, _)| *it == phase)
        .expect("a phase that can be seen");
    world.see_all(way);
    assert_eq!(phase_of(&world), Some(phase));
    world
}

/// v1 is being moved away from, to v2.
fn in_phase(phase: Phase) -> World {
    migrating(World::with_instances(2), "v2", keep(), phase)
}

/// v1 and v2 are being drained after two migrations, the first of which timed out; v3 serves.
fn twice(phase: Phase, options: Options) -> World {
    migrating(
        timed_out(World::with_instances(3), "v2"),
        "v3",
        options,
        phase,
    )
}

/// A migration to `to` has ended with its time.
fn timed_out(world: World, to: &str) -> World {
    let mut world = migrating(world, to, keep(), Phase::Settling);
    world.now = keep().deadline_ms;
    world.see(Observation::GraceOver);
    assert_eq!(phase_of(&world), None);
    world.now = 0;
    world
}

/// A migration to `to` is done.
fn migrated(world: World, to: &str, options: Options) -> World {
    let mut world = migrating(world, to, options, Phase::Retiring);
    if options.closes_listeners() {
        world.shut_down_draining();
    }
    world.see(Observation::Retired);
    assert_eq!(phase_of(&world), None);
    world
}

fn phase_of(world: &World) -> Option<Phase> {
    world.service.migration.as_ref().map(|it| it.phase)
}
