//! Processes end, in every role and every phase.

use super::{PHASES, in_phase, migrated, migrating, phase_of, timed_out, twice};
use crate::domain::{
    Decision, End, Generation,
    InstanceState::{Draining, Gone, Retired, Serving, Standby},
    Observation, Phase, Retire, process_ended,
    testing::{World, keep, options, process},
};

const DRAINING: Phase = Phase::Settling;

fn is_retiring(phase: Phase) -> bool {
    phase == Phase::Retiring
}

#[test]
fn the_target_ends_and_the_old_instance_serves_again() {
    for (phase, _) in PHASES.into_iter().filter(|(it, _)| !is_retiring(*it)) {
        let mut world = in_phase(phase);
        world.end_process(process(2));
        assert_eq!((phase_of(&world), world.end), (None, Some(End::RolledBack)));
        assert_eq!(world.states(), [("v1", Serving), ("v2", Gone)], "{phase:?}");
        assert_eq!(world.wait, None);
    }
}

#[test]
fn the_target_ends_while_the_old_listeners_are_kept() {
    let mut world = in_phase(Phase::Retiring);
    world.end_process(process(2));
    assert_eq!(world.states(), [("v1", Serving), ("v2", Gone)]);
    assert_eq!((phase_of(&world), world.end), (None, Some(End::Failed)));
}

#[test]
fn the_target_ends_while_the_old_listeners_are_shut_down() {
    let shutdown = options(Retire::Shutdown);
    let mut world = migrating(World::with_instances(2), "v2", shutdown, Phase::Retiring);
    world.end_process(process(2));
    // v1 may have no listener any more: whoever comes next serves at once.
    assert_eq!(world.states(), [("v1", Draining), ("v2", Gone)]);
    world.shut_down_draining();
    world.see(Observation::Retired);
    assert_eq!((phase_of(&world), world.end), (None, Some(End::Failed)));
    world.start(process(3), 1);
    assert_eq!(world.register(process(3), Some("v3")), Ok(Generation(3)));
    assert_eq!(world.states(), [("v1", Retired), ("v3", Serving)]);
}

#[test]
fn the_target_ends_while_retiring_and_a_standby_takes_over() {
    let mut world = migrating(World::with_instances(3), "v2", keep(), Phase::Retiring);
    world.end_process(process(2));
    let heir = [("v1", Draining), ("v2", Gone), ("v3", Serving)];
    assert_eq!(world.states(), heir);
    assert_eq!(phase_of(&world), Some(Phase::Retiring));
    world.see(Observation::Retired);
    assert_eq!(
        world.end,
        Some(End::Failed),
        "it is not the instance that was asked for"
    );
}

#[test]
fn the_target_ends_and_nobody_is_left_to_go_back_to() {
    let mut world = twice(DRAINING, keep());
    world.end_process(process(2));
    world.end_process(process(3));
    assert_eq!(world.states(), [("v1", Serving), ("v3", Gone)]);
    assert_eq!((phase_of(&world), world.end), (None, Some(End::Failed)));
}

#[test]
fn the_old_instance_ends_and_the_migration_is_done() {
    for (phase, _) in PHASES {
        let mut world = in_phase(phase);
        world.end_process(process(1));
        assert_eq!((phase_of(&world), world.end), (None, Some(End::Done)));
        assert_eq!(world.states(), [("v2", Serving)], "{phase:?}");
    }
}

#[test]
fn the_last_of_the_old_instances_ends_it() {
    for (phase, _) in PHASES {
        for order in [[1, 2], [2, 1]] {
            let mut world = twice(phase, keep());
            world.end_process(process(order[0]));
            assert_eq!(phase_of(&world), Some(phase));
            assert!(world.wait.is_some(), "what is waited for stays so");
            world.end_process(process(order[1]));
            assert_eq!((phase_of(&world), world.end), (None, Some(End::Done)));
        }
    }
}

#[test]
fn a_standby_ends_and_nothing_else_changes() {
    for (phase, _) in PHASES {
        let mut world = migrating(World::with_instances(3), "v2", keep(), phase);
        world.end_process(process(3));
        assert_eq!(phase_of(&world), Some(phase));
        assert_eq!(world.states(), [("v1", Draining), ("v2", Serving)]);
    }
    let mut world = World::with_instances(2);
    world.end_process(process(2));
    assert_eq!(world.states(), [("v1", Serving)]);
}

#[test]
fn the_newest_standby_is_the_first_heir() {
    let mut world = World::with_instances(3);
    world.end_process(process(1));
    let heir = [("v1", Gone), ("v2", Standby), ("v3", Serving)];
    assert_eq!(world.states(), heir);
}

#[test]
fn without_a_standby_a_retired_instance_that_listens_takes_over() {
    let mut world = migrated(World::with_instances(2), "v2", keep());
    world.end_process(process(2));
    assert_eq!(world.states(), [("v1", Serving), ("v2", Gone)]);
}

#[test]
fn a_retired_instance_without_listeners_is_no_heir() {
    let shutdown = options(Retire::Shutdown);
    let mut world = migrated(World::with_instances(2), "v2", shutdown);
    world.end_process(process(2));
    assert_eq!(world.states(), [("v1", Retired), ("v2", Gone)]);
}

#[test]
fn what_a_timed_out_migration_left_is_the_last_heir() {
    let mut world = timed_out(World::with_instances(2), "v2");
    world.end_process(process(2));
    assert_eq!(world.states(), [("v1", Serving), ("v2", Gone)]);
}

#[test]
fn without_an_heir_everything_is_parked() {
    let mut world = World::with_instances(1);
    world.end_process(process(1));
    assert_eq!(world.states(), [("v1", Gone)]);
    assert!(
        world
            .kernel
            .groups
            .iter()
            .all(|it| it.is_parked() && it.records.is_empty())
    );
}

#[test]
fn one_that_is_gone_stays_until_the_next_is() {
    let mut world = World::with_instances(3);
    world.end_process(process(1));
    let unchanged = Decision::unchanged(&world.service);
    assert_eq!(
        process_ended(&world.service, Generation(1)),
        unchanged,
        "told twice"
    );
    world.end_process(process(3));
    assert_eq!(world.states(), [("v2", Serving), ("v3", Gone)]);
    assert_eq!(world.migrate("v2", keep()), Ok(false));
}

#[test]
fn an_instance_that_nobody_knows_ends_unnoticed() {
    let world = World::with_instances(1);
    let unchanged = Decision::unchanged(&world.service);
    assert_eq!(process_ended(&world.service, Generation(9)), unchanged);
}
