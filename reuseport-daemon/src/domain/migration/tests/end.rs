//! Going back.

use super::{PHASES, in_phase, migrated, phase_of, timed_out, twice};
use crate::domain::{
    End,
    InstanceState::{Draining, Serving, Standby},
    Phase, Refusal, roll_back,
    testing::{World, keep, process},
};

#[test]
fn there_is_a_way_back_until_the_old_listeners_are_retired() {
    for (phase, _) in PHASES {
        let mut world = in_phase(phase);
        if phase == Phase::Retiring {
            let refusal = Refusal::Retired(world.service.name().clone());
            assert_eq!(world.roll_back(), Err(refusal));
            continue;
        }
        assert_eq!(world.roll_back(), Ok(()), "{phase:?}");
        assert_eq!((phase_of(&world), world.end), (None, Some(End::RolledBack)));
        assert_eq!(world.states(), [("v1", Serving), ("v2", Standby)]);
        // And forward again.
        assert_eq!(world.migrate("v2", keep()), Ok(true));
    }
}

#[test]
fn the_way_back_is_staged_before_any_table_changes() {
    let decision = roll_back(&in_phase(Phase::Switched).service).expect("the old one lives");
    assert_eq!(
        World::names(&decision.effects),
        [
            "record-migration",
            "write-table",
            "write-table",
            "flip",
            "flip",
            "record-instance",
            "record-instance",
            "record-migration",
        ]
    );
}

#[test]
fn without_a_migration_there_is_nothing_to_go_back_from() {
    for mut world in [
        World::new(1),
        World::with_instances(2),
        migrated(World::with_instances(2), "v2", keep()),
        timed_out(World::with_instances(2), "v2"),
    ] {
        let refusal = Refusal::NothingToRollBack(world.service.name().clone());
        assert_eq!(world.roll_back(), Err(refusal));
    }
}

#[test]
fn there_is_no_way_back_to_what_has_ended() {
    // v1 is left from a migration that timed out, and nobody to go back to.
    let mut world = twice(Phase::Settling, keep());
    world.end_process(process(2));
    assert_eq!(world.states(), [("v1", Draining), ("v3", Serving)]);
    assert_eq!(phase_of(&world), Some(Phase::Settling), "v1 is waited for");
    let refusal = Refusal::OriginGone(world.service.name().clone());
    assert_eq!(world.roll_back(), Err(refusal));
}

#[test]
fn what_was_left_from_earlier_stays_as_it_is() {
    let mut world = twice(Phase::Settling, keep());
    assert_eq!(world.roll_back(), Ok(()));
    let back = [("v1", Draining), ("v2", Serving), ("v3", Standby)];
    assert_eq!(world.states(), back);
}

#[test]
fn of_several_to_go_back_to_those_that_live_serve_again() {
    let mut world = in_phase(Phase::Settling);
    let migration = world.service.migration.as_mut().expect("under way");
    migration.from.push(crate::domain::Generation(9));
    assert_eq!(world.roll_back(), Ok(()));
    assert_eq!(world.states(), [("v1", Serving), ("v2", Standby)]);
}
