use super::*;
use crate::domain::{
    Retire,
    testing::{World, keep, label, options, process},
};
use InstanceState::{Draining, Gone, Retired, Serving, Standby};

#[test]
fn the_first_instance_serves_and_later_ones_stand_by() {
    let world = World::with_instances(3);
    let states = [("v1", Serving), ("v2", Standby), ("v3", Standby)];
    assert_eq!(world.states(), states);
    assert_eq!(world.service.newest, Generation(3));
    assert!(world.kernel.groups.iter().all(|it| it.attached));
}

#[test]
fn an_instance_is_on_record_only_when_all_of_it_is_in_place() {
    let mut world = World::new(2);
    world.start(process(1), 1);
    let (decision, _) = world.decide_registration(process(1), None).expect("fit");
    assert_eq!(
        World::names(&decision.effects),
        [
            "record-generation",
            "insert",
            "insert",
            "write-table",
            "write-table",
            "flip",
            "flip",
            "attach",
            "attach",
            "record-instance",
        ]
    );
}

#[test]
fn an_instance_without_a_label_goes_by_its_number() {
    let mut world = World::with_instances(1);
    world.start(process(2), 1);
    assert_eq!(world.register(process(2), None), Ok(Generation(2)));
    assert_eq!(world.states(), [("v1", Serving), ("g2", Standby)]);
}

#[test]
fn registering_again_changes_nothing() {
    let world = World::with_instances(2);
    for (pid, label) in [(1, Some("v1")), (1, None), (2, None)] {
        let again = world.decide_registration(process(pid), label);
        let unchanged = Decision::unchanged(&world.service);
        assert_eq!(again, Ok((unchanged, Generation(pid))));
    }
}

#[test]
fn registering_again_during_a_migration_changes_nothing() {
    let mut world = World::with_instances(2);
    assert_eq!(world.migrate("v2", keep()), Ok(true));
    let (decision, _) = world.decide_registration(process(1), None).expect("known");
    assert_eq!(decision, Decision::unchanged(&world.service));
}

#[test]
fn nobody_is_taken_in_during_a_migration() {
    let mut world = World::with_instances(2);
    assert_eq!(world.migrate("v2", keep()), Ok(true));
    world.start(process(3), 1);
    let refusal = world.register(process(3), Some("v3")).expect_err("new");
    assert_eq!(refusal.code(), "migration-under-way");
    world.listen(process(1), 0);
    let refusal = world.register(process(1), None).expect_err("changed");
    assert_eq!(refusal.code(), "migration-under-way");
}

#[test]
fn listeners_that_changed_are_brought_up_to_date() {
    let mut world = World::with_instances(2);
    for pid in [1, 2] {
        let kept = world.processes[&process(pid)][0];
        let opened = world.listen(process(pid), 0);
        let open = world.processes.get_mut(&process(pid)).expect("open");
        let closed = open.remove(1);
        assert_eq!(closed.group, 0);
        world.kernel.close(&[closed.cookie]);
        assert_eq!(world.register(process(pid), None), Ok(Generation(pid)));

        let ours = world.kernel.groups[0].records.values();
        let ours = ours.filter(|it| it.generation == Generation(pid));
        let cookies: BTreeSet<_> = ours.map(|it| it.cookie).collect();
        assert_eq!(cookies, BTreeSet::from([kept.cookie, opened]));
    }
}

#[test]
fn a_label_belongs_to_one_instance() {
    let mut world = World::with_instances(2);
    world.start(process(3), 1);
    let refusal = world.register(process(3), Some("v1"));
    let taken = Refusal::LabelTaken {
        label: label("v1"),
        pid: 1,
    };
    assert_eq!(refusal, Err(taken));
}

#[test]
fn an_instance_keeps_its_label() {
    let mut world = World::with_instances(1);
    let refusal = world.register(process(1), Some("other"));
    let differs = Refusal::LabelDiffers {
        pid: 1,
        label: label("v1"),
    };
    assert_eq!(refusal, Err(differs));
}

#[test]
fn an_instance_without_a_label_gets_one_that_nobody_has() {
    let mut world = World::new(1);
    world.start(process(1), 1);
    assert_eq!(world.register(process(1), Some("g2")), Ok(Generation(1)));
    world.start(process(2), 1);
    assert_eq!(world.register(process(2), None), Ok(Generation(2)));
    assert_eq!(world.states(), [("g2", Serving), ("g3", Standby)]);
}

#[test]
fn the_label_of_what_is_gone_is_free() {
    let mut world = World::with_instances(2);
    world.end_process(process(1));
    world.start(process(3), 1);
    assert_eq!(world.register(process(3), Some("v1")), Ok(Generation(3)));
    assert_eq!(world.states(), [("v2", Serving), ("v1", Standby)]);
}

#[test]
fn a_new_instance_serves_where_all_others_are_gone() {
    let mut world = World::with_instances(1);
    world.end_process(process(1));
    world.start(process(2), 1);
    assert_eq!(world.register(process(2), Some("v2")), Ok(Generation(2)));
    assert_eq!(world.states(), [("v2", Serving)]);
}

#[test]
fn a_pid_that_is_used_again_is_another_process() {
    let mut world = World::with_instances(1);
    world.end_process(process(1));
    let later = ProcessId {
        start_time: 200,
        ..process(1)
    };
    world.start(later, 1);
    assert_eq!(world.register(later, Some("v1")), Ok(Generation(2)));
    assert_eq!(world.states(), [("v1", Serving)]);
}

#[test]
fn a_process_that_has_ended_cannot_register() {
    let mut world = World::with_instances(1);
    world.end_process(process(1));
    // Its listener came along in the call.
    world.start(process(1), 1);
    let refusal = world.register(process(1), Some("v1"));
    assert_eq!(refusal, Err(Refusal::InstanceGone(label("v1"))));
}

#[test]
fn a_listener_belongs_to_one_instance() {
    let mut world = World::with_instances(1);
    let shared = world.processes[&process(1)].clone();
    world.processes.insert(process(2), shared);
    let refusal = world.register(process(2), Some("v2")).expect_err("shared");
    assert_eq!(refusal.code(), "shared-listener");
    assert!(refusal.to_string().contains("instance v1"));
}

#[test]
fn slots_run_out_and_come_back() {
    let mut world = World::with_slots(2, 4);
    for pid in 1..=3 {
        world.start(process(pid), 1);
        assert_eq!(world.register(process(pid), None), Ok(Generation(pid)));
    }
    world.start(process(4), 2);
    let refusal = world.register(process(4), None).expect_err("full");
    let Refusal::SlotsFull {
        need, free, slots, ..
    } = &refusal
    else {
        panic!("{refusal}");
    };
    assert_eq!((*need, *free, *slots), (2, 0, 4));
    assert!(refusal.hint().is_some());

    assert_eq!(world.release("g2"), Ok(()));
    assert_eq!(world.release("g3"), Ok(()));
    assert_eq!(world.register(process(4), None), Ok(Generation(4)));
}

#[test]
fn the_last_generation_is_not_given_twice() {
    let mut world = World::with_instances(1);
    world.service.newest = Generation(u32::MAX - 1);
    world.kernel.newest = world.service.newest;
    world.start(process(2), 1);
    assert_eq!(world.register(process(2), None), Ok(Generation(u32::MAX)));
    world.start(process(3), 1);
    let refusal = world.register(process(3), None).expect_err("spent");
    assert_eq!(refusal.code(), "generations-spent");
    assert!(refusal.hint().is_some());
}

#[test]
fn what_does_not_serve_can_be_released() {
    let mut world = World::with_instances(3);
    assert_eq!(world.release("v3"), Ok(()));
    let refusal = world.release("v3").expect_err("released");
    assert_eq!(refusal.code(), "unknown-instance");
    assert_eq!(
        world.release("v1"),
        Err(Refusal::InstanceServes(label("v1")))
    );
    assert!(world.kernel.groups.iter().all(|it| it.records.len() == 4));
}

#[test]
fn what_is_gone_can_be_released() {
    let mut world = World::with_instances(2);
    world.end_process(process(1));
    assert_eq!(world.state("v1"), Some(Gone));
    assert_eq!(world.release("v1"), Ok(()));
    assert_eq!(world.states(), [("v2", Serving)]);
}

#[test]
fn what_is_being_drained_cannot_be_released() {
    let mut world = World::with_instances(2);
    assert_eq!(world.migrate("v2", keep()), Ok(true));
    assert_eq!(
        world.release("v1"),
        Err(Refusal::InstanceDrains(label("v1")))
    );
    assert_eq!(
        world.release("v2"),
        Err(Refusal::InstanceServes(label("v2")))
    );
}

#[test]
fn what_a_timed_out_migration_left_can_be_released() {
    let mut world = World::with_instances(2);
    let late = crate::domain::Options {
        deadline_ms: 0,
        migrate_req: None,
        ..keep()
    };
    assert_eq!(world.migrate("v2", late), Ok(true));
    world.see(crate::domain::Observation::Missed);
    assert_eq!(world.state("v1"), Some(Draining));
    assert_eq!(world.release("v1"), Ok(()));
    assert_eq!(world.states(), [("v2", Serving)]);
    assert_eq!(world.migrate("v2", keep()), Ok(false));
}

#[test]
fn what_is_retired_can_be_released_or_serve_again() {
    for retire in [Retire::Keep, Retire::Shutdown] {
        let mut world = World::with_instances(2);
        assert_eq!(world.migrate("v2", options(retire)), Ok(true));
        crate::domain::testing::drain(&mut world);
        assert_eq!(world.state("v1"), Some(Retired));
        assert_eq!(world.release("v1"), Ok(()));
        assert!(world.register(process(1), Some("v1")).is_ok());
        assert_eq!(world.state("v1"), Some(Standby));
    }
}
