//! Every observation in every phase.

use std::time::Duration;

use super::{EMPTY, PAUSE, PHASES, in_phase, migrating, phase_of, reading, twice};
use crate::domain::{
    Decision, End,
    InstanceState::{Draining, Retired, Serving, Standby},
    Observation, Phase, Retire, Tally, Wait, advance,
    testing::{DEADLINE, World, by_kernel, keep, options, process},
};

const HANDSHAKES: Phase = Phase::Handshakes { pause: PAUSE };
const QUEUES: Phase = Phase::Queues { pause: PAUSE };
const AT_ONCE: Wait = Wait::Reading {
    after: Duration::ZERO,
};

/// What follows from an observation in a phase, in time.
fn after(phase: Phase, seen: Observation) -> (Option<Phase>, Option<Wait>, Option<End>) {
    told(&advance(&in_phase(phase).service, seen, 0))
}

fn told(decision: &Decision) -> (Option<Phase>, Option<Wait>, Option<End>) {
    let phase = decision.next.migration.as_ref().map(|it| it.phase);
    let end = decision.end.as_ref().map(|(_, end)| *end);
    (phase, decision.wait, end)
}

fn goes_to(phase: Phase, wait: Wait) -> (Option<Phase>, Option<Wait>, Option<End>) {
    (Some(phase), Some(wait), None)
}

#[test]
fn the_grace_period_after_the_switch_leads_to_the_snapshot() {
    let expected = goes_to(HANDSHAKES, Wait::Snapshot);
    assert_eq!(after(Phase::Switched, Observation::GraceOver), expected);
}

#[test]
fn handshakes_are_looked_at_again_until_none_is_left() {
    let longer = Phase::Handshakes { pause: PAUSE * 2 };
    let wait = Wait::Reading { after: PAUSE };
    assert_eq!(after(HANDSHAKES, reading(1, 0)), goes_to(longer, wait));
    // Whatever the queues hold.
    for queued in [0, 9] {
        let expected = goes_to(Phase::Settling, Wait::Grace);
        assert_eq!(after(HANDSHAKES, reading(0, queued)), expected);
    }
}

#[test]
fn the_grace_period_after_the_handshakes_leads_to_the_queues() {
    let expected = goes_to(QUEUES, AT_ONCE);
    assert_eq!(after(Phase::Settling, Observation::GraceOver), expected);
}

#[test]
fn queues_are_looked_at_again_until_they_are_empty() {
    let longer = Phase::Queues { pause: PAUSE * 2 };
    let wait = Wait::Reading { after: PAUSE };
    assert_eq!(after(QUEUES, reading(0, 1)), goes_to(longer, wait));
    for retire in [Retire::Keep, Retire::Shutdown, Retire::Signal(15)] {
        let world = migrating(World::with_instances(2), "v2", options(retire), QUEUES);
        let decision = advance(&world.service, EMPTY, 0);
        let expected = goes_to(Phase::Retiring, Wait::Retirement(options(retire)));
        assert_eq!(told(&decision), expected);
        assert_eq!(World::names(&decision.effects), ["record-migration"]);
    }
}

#[test]
fn a_handshake_that_shows_up_late_is_waited_for_again() {
    let expected = goes_to(
        Phase::Handshakes { pause: PAUSE * 2 },
        Wait::Reading { after: PAUSE },
    );
    assert_eq!(after(QUEUES, reading(1, 0)), expected);
}

#[test]
fn pauses_grow_up_to_a_limit() {
    let mut world = in_phase(HANDSHAKES);
    let mut pauses = Vec::new();
    for _ in 0..8 {
        world.see(reading(1, 1));
        let Some(Wait::Reading { after }) = world.wait else {
            panic!("{:?}", world.wait);
        };
        pauses.push(after.as_millis());
    }
    assert_eq!(pauses, [2, 4, 8, 16, 32, 50, 50, 50]);
}

#[test]
fn the_retirement_ends_it() {
    let mut world = in_phase(Phase::Retiring);
    world.see(Observation::Retired);
    assert_eq!((phase_of(&world), world.end), (None, Some(End::Done)));
    assert_eq!(world.states(), [("v1", Retired), ("v2", Serving)]);
    let kept: usize = world.kernel.groups.iter().map(|it| it.records.len()).sum();
    assert_eq!(kept, 8, "listeners that are kept keep their slots");
}

#[test]
fn listeners_that_were_shut_down_leave_their_slots() {
    let how = options(Retire::Shutdown);
    let mut world = migrating(World::with_instances(2), "v2", how, Phase::Retiring);
    world.shut_down_draining();
    world.see(Observation::Retired);
    assert_eq!(world.end, Some(End::Done));
    let kept: usize = world.kernel.groups.iter().map(|it| it.records.len()).sum();
    assert_eq!(kept, 4);
}

#[test]
fn what_could_not_be_retired_is_drained_and_retired_again() {
    let mut world = in_phase(Phase::Retiring);
    world.see(Observation::NotRetired);
    assert_eq!((phase_of(&world), world.end), (None, Some(End::NotRetired)));
    assert_eq!(world.states(), [("v1", Draining), ("v2", Serving)]);
    let mut world = migrating(world, "v2", keep(), Phase::Retiring);
    world.see(Observation::Retired);
    assert_eq!(world.end, Some(End::Done));
    assert_eq!(world.states(), [("v1", Retired), ("v2", Serving)]);
}

#[test]
fn what_was_missed_is_looked_at_again() {
    let missed = |phase| after(phase, Observation::Missed);
    let grace = |phase| goes_to(phase, Wait::Grace);
    assert_eq!(missed(Phase::Switched), grace(Phase::Switched));
    assert_eq!(missed(HANDSHAKES), goes_to(HANDSHAKES, Wait::Snapshot));
    assert_eq!(missed(Phase::Settling), grace(Phase::Settling));
    assert_eq!(missed(QUEUES), goes_to(QUEUES, AT_ONCE));
    let retirement = goes_to(Phase::Retiring, Wait::Retirement(keep()));
    assert_eq!(missed(Phase::Retiring), retirement);

    // Once there is a snapshot, a second one would take in handshakes that are the new instance's.
    let mut world = in_phase(HANDSHAKES);
    world.see_all(&[reading(1, 0), Observation::Missed]);
    assert_eq!(world.wait, Some(AT_ONCE));
}

#[test]
fn the_deadline_ends_the_drain_where_it_is() {
    for phase in [HANDSHAKES, Phase::Settling, QUEUES] {
        for seen in [
            Observation::GraceOver,
            reading(2, 3),
            Observation::Retired,
            Observation::Missed,
        ] {
            let mut world = in_phase(phase);
            world.now = DEADLINE - 1;
            assert_eq!(advance(&world.service, seen, world.now).end, None);
            world.now = DEADLINE;
            world.see(seen);
            assert_eq!((phase_of(&world), world.end), (None, Some(End::TimedOut)));
            assert_eq!(world.states(), [("v1", Draining), ("v2", Serving)]);
        }
    }
}

#[test]
fn what_is_empty_at_the_deadline_is_done() {
    let late = |phase, seen| told(&advance(&in_phase(phase).service, seen, DEADLINE));
    let retirement = goes_to(Phase::Retiring, Wait::Retirement(keep()));
    assert_eq!(late(QUEUES, EMPTY), retirement);
    // The same reading proves nothing while a handshake may be on its way into a queue.
    assert_eq!(late(HANDSHAKES, EMPTY).2, Some(End::TimedOut));
    assert_eq!(late(Phase::Settling, EMPTY).2, Some(End::TimedOut));
}

#[test]
fn the_deadline_does_not_cut_off_the_snapshot_nor_the_retirement() {
    let late = |phase, seen| told(&advance(&in_phase(phase).service, seen, DEADLINE));
    let snapshot = goes_to(HANDSHAKES, Wait::Snapshot);
    assert_eq!(late(Phase::Switched, Observation::GraceOver), snapshot);
    assert_eq!(
        late(Phase::Retiring, Observation::Retired).2,
        Some(End::Done)
    );
    let missed = late(Phase::Retiring, Observation::Missed);
    assert_eq!(missed.1, Some(Wait::Retirement(keep())));
}

#[test]
fn the_kernel_moves_what_is_queued_once_no_handshake_is_left() {
    let mut world = World::with_instances(2);
    assert_eq!(world.migrate("v2", by_kernel()), Ok(true));
    world.see_all(&[Observation::GraceOver, reading(1, 7), reading(0, 7)]);
    assert_eq!(world.wait, Some(Wait::Grace));
    world.see(Observation::GraceOver);
    assert_eq!(world.wait, Some(Wait::Retirement(by_kernel())));
    world.shut_down_draining();
    world.see(Observation::Retired);
    assert_eq!(world.end, Some(End::Done));
    assert_eq!(world.states(), [("v1", Retired), ("v2", Serving)]);
    assert!(world.kernel.groups.iter().all(|it| it.records.len() == 2));
}

#[test]
fn the_kernel_moves_what_the_deadline_cuts_off() {
    for (phase, seen) in [
        (HANDSHAKES, reading(2, 3)),
        (HANDSHAKES, Observation::Missed),
        (Phase::Settling, Observation::GraceOver),
    ] {
        let world = migrating(World::with_instances(2), "v2", by_kernel(), phase);
        let retirement = goes_to(Phase::Retiring, Wait::Retirement(by_kernel()));
        assert_eq!(told(&advance(&world.service, seen, DEADLINE)), retirement);
    }
    // Nothing is shut down before the grace period after the switch.
    let world = migrating(World::with_instances(2), "v2", by_kernel(), Phase::Switched);
    let late = advance(&world.service, Observation::Missed, DEADLINE);
    assert_eq!(told(&late).2, Some(End::TimedOut));
}

#[test]
fn an_instance_that_listens_no_more_is_not_moved_to() {
    for phase in [HANDSHAKES, QUEUES] {
        for now in [0, DEADLINE] {
            let mut world = in_phase(phase);
            world.now = now;
            world.see(Observation::Deaf);
            assert_eq!(world.end, Some(End::RolledBack));
            assert_eq!(world.states(), [("v1", Serving), ("v2", Standby)]);
        }
    }
}

#[test]
fn without_anybody_to_go_back_to_it_waits_for_its_time() {
    // v1 is drained still, and nobody whom the service came from is left.
    let mut world = twice(HANDSHAKES, keep());
    world.end_process(process(2));
    world.see(Observation::Deaf);
    assert_eq!(
        (world.end, world.wait),
        (Some(End::TimedOut), Some(Wait::Snapshot))
    );
    world.now = DEADLINE;
    world.see(Observation::Deaf);
    assert_eq!(world.wait, None);
    assert_eq!(world.states(), [("v1", Draining), ("v3", Serving)]);
}

#[test]
fn a_grace_period_that_cannot_be_had_ends_with_the_time() {
    let world = in_phase(Phase::Switched);
    let decision = advance(&world.service, Observation::Missed, DEADLINE);
    assert_eq!(told(&decision), (None, None, Some(End::TimedOut)));
}

#[test]
fn what_was_not_waited_for_changes_nothing() {
    for (phase, _) in PHASES {
        let world = in_phase(phase);
        for seen in [
            Observation::GraceOver,
            EMPTY,
            reading(1, 1),
            Observation::Retired,
            Observation::NotRetired,
        ] {
            let waited_for = matches!(
                (phase, seen),
                (Phase::Switched | Phase::Settling, Observation::GraceOver)
                    | (
                        Phase::Handshakes { .. } | Phase::Queues { .. },
                        Observation::Reading { .. }
                    )
                    | (
                        Phase::Retiring,
                        Observation::Retired | Observation::NotRetired
                    )
            );
            if waited_for {
                continue;
            }
            let expected = Decision::unchanged(&world.service);
            assert_eq!(
                advance(&world.service, seen, 0),
                expected,
                "{seen:?} in {phase:?}"
            );
        }
    }
}

#[test]
fn without_a_migration_nothing_is_observed() {
    let world = World::with_instances(1);
    for seen in [
        Observation::GraceOver,
        EMPTY,
        Observation::Retired,
        Observation::Missed,
    ] {
        let expected = Decision::unchanged(&world.service);
        assert_eq!(advance(&world.service, seen, DEADLINE), expected);
    }
}

#[test]
fn the_tally_is_the_first_reading_and_the_last() {
    let mut world = World::with_instances(2);
    assert_eq!(world.migrate("v2", keep()), Ok(true));
    world.see_all(&[Observation::GraceOver, reading(5, 2), reading(1, 4)]);
    let tally = world.service.migration.as_ref().and_then(|it| it.tally);
    let expected = Tally {
        handshakes: 5,
        queued: 2,
        left: 5,
    };
    assert_eq!(tally, Some(expected));
    assert_eq!(expected.taken(), 2);

    world.now = DEADLINE;
    let decision = advance(&world.service, reading(1, 0), DEADLINE);
    let (migration, end) = decision.end.expect("out of time");
    assert_eq!(end, End::TimedOut);
    assert_eq!(
        migration.tally.map(|it| it.left),
        Some(1),
        "the last reading counts"
    );
}
