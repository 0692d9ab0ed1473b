//! From idle to switched.

use super::{keep, migrated, phase_of, timed_out};
use crate::domain::{
    End, Generation,
    InstanceState::{Draining, Gone, Retired, Serving, Standby},
    Observation, Phase, Refusal, Retire, Wait, migrate,
    migration::Start,
    testing::{World, label, options, process},
};

#[test]
fn a_migration_stages_switches_and_waits_for_a_grace_period() {
    let mut world = World::with_instances(2);
    let Ok(Start::Begin(decision)) = migrate(&world.service, &label("v2"), keep()) else {
        panic!("to be done");
    };
    assert_eq!(
        World::names(&decision.effects),
        [
            "record-migration",
            "write-table",
            "write-table",
            "flip",
            "flip",
            "record-migration",
            "record-instance",
            "record-instance",
        ]
    );
    world.perform(*decision);
    assert_eq!(phase_of(&world), Some(Phase::Switched));
    assert_eq!(world.wait, Some(Wait::Grace));
    assert_eq!(world.states(), [("v1", Draining), ("v2", Serving)]);
    let migration = world.service.migration.expect("under way");
    assert_eq!(migration.from, [Generation(1)]);
    assert_eq!(migration.to, Generation(2));
}

#[test]
fn what_serves_already_is_unchanged() {
    let mut world = World::with_instances(2);
    assert_eq!(world.migrate("v1", keep()), Ok(false));
    let mut world = migrated(World::with_instances(2), "v2", keep());
    assert_eq!(world.migrate("v2", keep()), Ok(false));
}

#[test]
fn an_instance_that_is_unknown_is_refused() {
    let refusal = World::with_instances(1).migrate("v2", keep());
    assert_eq!(refusal.expect_err("unknown").code(), "unknown-instance");
}

#[test]
fn an_instance_that_is_gone_is_refused() {
    let mut world = World::with_instances(2);
    world.end_process(process(1));
    assert_eq!(world.states(), [("v1", Gone), ("v2", Serving)]);
    let refusal = world.migrate("v1", keep());
    assert_eq!(refusal, Err(Refusal::InstanceGone(label("v1"))));
}

#[test]
fn an_instance_whose_listeners_were_shut_down_is_refused() {
    let mut world = migrated(World::with_instances(2), "v2", options(Retire::Shutdown));
    assert_eq!(world.states(), [("v1", Retired), ("v2", Serving)]);
    let refusal = world
        .migrate("v1", keep())
        .expect_err("nothing to steer at");
    assert_eq!(refusal.code(), "no-listener");
    assert!(refusal.hint().is_some());
    // Until it listens again.
    world.start(process(1), 1);
    assert_eq!(world.register(process(1), None), Ok(Generation(1)));
    assert_eq!(world.migrate("v1", keep()), Ok(true));
}

#[test]
fn one_migration_at_a_time() {
    let mut world = World::with_instances(3);
    assert_eq!(world.migrate("v2", keep()), Ok(true));
    for to in ["v1", "v2", "v3", "v4"] {
        let refusal = world.migrate(to, keep()).expect_err("under way");
        assert_eq!(refusal.code(), "migration-under-way");
    }
}

#[test]
fn what_timed_out_can_be_drained_on() {
    let mut world = timed_out(World::with_instances(2), "v2");
    assert_eq!(world.end, Some(End::TimedOut));
    assert_eq!(world.migrate("v2", keep()), Ok(true));
    assert_eq!(world.states(), [("v1", Draining), ("v2", Serving)]);
    assert_eq!(phase_of(&world), Some(Phase::Switched));
    // And gone back from, to whoever served last.
    assert_eq!(world.roll_back(), Ok(()));
    assert_eq!(world.states(), [("v1", Serving), ("v2", Standby)]);
}

#[test]
fn draining_on_is_not_staged_since_no_table_changes() {
    let world = timed_out(World::with_instances(2), "v2");
    let Ok(Start::Begin(decision)) = migrate(&world.service, &label("v2"), keep()) else {
        panic!("to be done");
    };
    assert_eq!(World::names(&decision.effects), ["record-migration"]);
}

#[test]
fn what_is_left_from_earlier_is_waited_for_and_not_gone_back_to() {
    let world = timed_out(World::with_instances(3), "v2");
    let mut world = timed_out(world, "v3");
    let all = [("v1", Draining), ("v2", Draining), ("v3", Serving)];
    assert_eq!(world.states(), all);
    assert_eq!(world.migrate("v3", keep()), Ok(true));
    assert_eq!(world.roll_back(), Ok(()));
    let back = [("v1", Draining), ("v2", Serving), ("v3", Standby)];
    assert_eq!(world.states(), back);
}

#[test]
fn a_migration_can_go_back_to_what_is_being_drained() {
    let mut world = timed_out(World::with_instances(2), "v2");
    assert_eq!(world.migrate("v1", keep()), Ok(true));
    assert_eq!(world.states(), [("v1", Serving), ("v2", Draining)]);
}

#[test]
fn a_service_without_a_serving_instance_gets_one() {
    let mut world = World::with_instances(2);
    world.close(process(1));
    // As an earlier daemon may have left it: gone on record, and nobody else made to serve.
    let gone = world.service.instances.get_mut(&Generation(1)).expect("v1");
    gone.state = Gone;
    world.kernel.instances = world.service.instances.clone();
    assert_eq!(world.migrate("v2", keep()), Ok(true));
    assert_eq!(world.states(), [("v2", Serving)]);
    let migration = world.service.migration.as_ref().expect("under way");
    assert_eq!(migration.from, []);
    assert_eq!(world.roll_back().expect_err("nobody").code(), "origin-gone");
    world.see_all(&[
        Observation::GraceOver,
        super::EMPTY,
        Observation::GraceOver,
        super::EMPTY,
        Observation::Retired,
    ]);
    assert_eq!(world.end, Some(End::Done));
}
