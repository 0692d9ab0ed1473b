//! The daemon is killed and another one goes on.

use super::{EMPTY, PHASES, in_phase, migrating, phase_of, reading, timed_out, twice};
use crate::domain::{
    Decision, Effect, End,
    InstanceState::{Draining, Gone, Retired, Serving, Standby},
    Migration, Observation, Phase, Refusal, Retire, Wait, advance, migrate,
    migration::Start,
    process_ended, register, release, resume, roll_back,
    testing::{DEADLINE, World, keep, label, options, process},
};

/// The world after a crash at every point of a decision, and after one more at every point of what
/// the next daemon then does; with how many effects the first daemon performed.
fn crashes(world: &World, decision: &Decision) -> Vec<(usize, World)> {
    let mut all = Vec::new();
    for after in 0..=decision.effects.len() {
        let mut killed = world.clone();
        killed.perform_some(decision, after);
        killed.load();
        let resumed = resume(&killed.service);
        for again in 0..=resumed.effects.len() {
            let mut killed = killed.clone();
            killed.crash(&resumed, again);
            all.push((after, killed));
        }
        killed.perform(resumed);
        all.push((after, killed));
    }
    all
}

fn switch(world: &World, to: &str) -> Decision {
    match migrate(&world.service, &label(to), keep()) {
        Ok(Start::Begin(decision)) => *decision,
        other => panic!("{other:?}"),
    }
}

fn position(decision: &Decision, wanted: impl Fn(&Migration) -> bool) -> usize {
    let recorded = |it: &Effect| matches!(it, Effect::RecordMigration(Some(it)) if wanted(it));
    decision
        .effects
        .iter()
        .position(recorded)
        .expect("recorded")
}

#[test]
fn a_switch_is_undone_until_it_is_recorded_and_finished_afterwards() {
    let world = World::with_instances(3);
    let decision = switch(&world, "v2");
    let switched = position(&decision, |it| it.phase == Phase::Switched);
    for (after, world) in crashes(&world, &decision) {
        if after <= switched {
            assert_eq!(phase_of(&world), None);
            assert_eq!(world.states()[..2], [("v1", Serving), ("v2", Standby)]);
        } else {
            assert_eq!(phase_of(&world), Some(Phase::Switched));
            assert_eq!(world.wait, Some(Wait::Grace));
            assert_eq!(world.states()[..2], [("v1", Draining), ("v2", Serving)]);
        }
    }
}

#[test]
fn a_switch_that_is_cut_short_goes_back_to_who_served_and_nobody_else() {
    let world = timed_out(World::with_instances(3), "v2");
    let decision = switch(&world, "v3");
    for (_, mut world) in crashes(&world, &decision) {
        if phase_of(&world).is_some() {
            assert_eq!(world.roll_back(), Ok(()));
        }
        let back = [("v1", Draining), ("v2", Serving), ("v3", Standby)];
        assert_eq!(world.states(), back);
    }
}

#[test]
fn draining_on_is_never_undone() {
    let world = timed_out(World::with_instances(2), "v2");
    let decision = switch(&world, "v2");
    for (after, world) in crashes(&world, &decision) {
        assert_eq!(world.states(), [("v1", Draining), ("v2", Serving)]);
        assert_eq!(phase_of(&world).is_some(), after > 0);
    }
}

#[test]
fn draining_starts_over_with_a_grace_period() {
    for (phase, _) in PHASES {
        let mut world = in_phase(phase);
        let before = world.states().len();
        world.load();
        world.perform(resume(&world.service));
        assert_eq!(world.states().len(), before);
        if phase == Phase::Retiring {
            assert_eq!(world.wait, Some(Wait::Retirement(keep())));
            world.see(Observation::Retired);
        } else {
            assert_eq!(world.wait, Some(Wait::Grace));
            let way = [
                Observation::GraceOver,
                reading(0, 3),
                Observation::GraceOver,
            ];
            world.see_all(&way);
            world.see_all(&[EMPTY, Observation::Retired]);
        }
        assert_eq!(world.end, Some(End::Done), "{phase:?}");
        assert_eq!(world.states(), [("v1", Retired), ("v2", Serving)]);
    }
}

#[test]
fn resuming_what_is_known_already_starts_over_too() {
    for (phase, _) in PHASES.into_iter().filter(|(it, _)| *it != Phase::Retiring) {
        let decision = resume(&in_phase(phase).service);
        assert_eq!(decision.effects, []);
        assert_eq!(decision.wait, Some(Wait::Grace));
        let phase = decision.next.migration.map(|it| it.phase);
        assert_eq!(phase, Some(Phase::Switched));
    }
}

#[test]
fn a_rollback_that_is_cut_short_is_finished() {
    for (phase, _) in PHASES.into_iter().filter(|(it, _)| *it != Phase::Retiring) {
        let world = twice(phase, keep());
        let decision = roll_back(&world.service).expect("a way back");
        for (after, mut world) in crashes(&world, &decision) {
            if after == 0 {
                assert_eq!(world.roll_back(), Ok(()));
            }
            assert_eq!(phase_of(&world), None);
            let back = [("v1", Draining), ("v2", Serving), ("v3", Standby)];
            assert_eq!(world.states(), back);
        }
    }
}

#[test]
fn the_end_of_the_target_is_seen_to_after_a_crash() {
    for (phase, _) in PHASES {
        let world = in_phase(phase);
        let target = world.service.find(&label("v2")).expect("v2");
        let decision = process_ended(&world.service, target);
        let mut world = world;
        world.close(process(2));
        for (_, mut world) in crashes(&world, &decision) {
            if world.state("v2") != Some(Gone) {
                world.end_process(process(2));
            }
            assert_eq!(phase_of(&world), None, "{phase:?}");
            assert_eq!(world.states(), [("v1", Serving), ("v2", Gone)]);
        }
    }
}

#[test]
fn the_end_of_any_other_instance_is_seen_to_after_a_crash() {
    for pid in 1..=3 {
        let mut world = World::with_instances(3);
        let generation = world
            .service
            .find(&label(&format!("v{pid}")))
            .expect("known");
        let decision = process_ended(&world.service, generation);
        world.close(process(pid));
        for (_, mut world) in crashes(&world, &decision) {
            if world.service.lives(generation) {
                world.end_process(process(pid));
            }
            let slots: usize = world.kernel.groups.iter().map(|it| it.records.len()).sum();
            assert_eq!(slots, 8, "two instances of two listeners in two groups");
            assert_eq!(world.service.in_state(Serving).count(), 1);
        }
    }
}

#[test]
fn a_target_that_ended_while_no_daemon_looked_is_gone_back_from() {
    let mut world = in_phase(Phase::Settling);
    world.close(process(2));
    world.load();
    world.perform(resume(&world.service));
    assert_eq!(world.wait, Some(Wait::Grace));
    world.end_process(process(2));
    assert_eq!(world.states(), [("v1", Serving), ("v2", Gone)]);
}

#[test]
fn a_registration_is_whole_or_leaves_nothing() {
    for count in [0, 1] {
        let mut world = World::with_instances(count);
        let pid = count + 1;
        world.start(process(pid), 2);
        let (decision, _) = world.decide_registration(process(pid), None).expect("fit");
        for (after, mut world) in crashes(&world, &decision) {
            let whole = after == decision.effects.len();
            assert_eq!(world.service.find_process(process(pid)).is_some(), whole);
            if !whole {
                let slots = world.kernel.groups.iter().map(|it| it.records.len());
                assert_eq!(slots.collect::<Vec<_>>(), [2 * count as usize; 2]);
                assert!(
                    world.register(process(pid), None).is_ok(),
                    "it can be repeated"
                );
            }
            assert!(world.kernel.groups.iter().all(|it| it.attached));
        }
    }
}

#[test]
fn listeners_that_changed_can_be_registered_again_after_a_crash() {
    let mut world = World::with_instances(1);
    world.close(process(1));
    world.start(process(1), 3);
    let placed = world.processes[&process(1)].clone();
    let (decision, _) = register(&world.service, process(1), None, &placed).expect("fit");
    for (_, mut world) in crashes(&world, &decision) {
        assert!(world.register(process(1), None).is_ok());
        assert!(world.kernel.groups.iter().all(|it| it.records.len() == 3));
    }
}

#[test]
fn a_release_leaves_all_of_an_instance_or_nothing() {
    let world = World::with_instances(2);
    let decision = release(&world.service, &label("v2")).expect("it stands by");
    for (after, world) in crashes(&world, &decision) {
        let expected = if after == 0 { 4 } else { 2 };
        for group in &world.kernel.groups {
            assert_eq!(group.records.len(), expected);
        }
        assert_eq!(world.state("v2").is_some(), after == 0);
    }
}

#[test]
fn a_retirement_is_done_again_after_a_crash() {
    let shutdown = options(Retire::Shutdown);
    let mut world = migrating(World::with_instances(2), "v2", shutdown, Phase::Retiring);
    world.shut_down_draining();
    let decision = advance(&world.service, Observation::Retired, 0);
    for (after, mut world) in crashes(&world, &decision) {
        if after < decision.effects.len() {
            // Where its record had been written nobody is left to be retired.
            let over = phase_of(&world).is_none();
            assert!(over || world.wait == Some(Wait::Retirement(shutdown)));
            world.see(Observation::Retired);
        }
        assert_eq!(world.states(), [("v1", Retired), ("v2", Serving)]);
        assert!(world.kernel.groups.iter().all(|it| it.records.len() == 2));
    }
}

#[test]
fn out_of_time_is_out_of_time_after_a_crash() {
    let mut world = in_phase(Phase::Settling);
    let decision = advance(&world.service, Observation::Missed, DEADLINE);
    world.now = DEADLINE;
    for (_, mut world) in crashes(&world, &decision) {
        if phase_of(&world).is_some() {
            world.see_all(&[Observation::GraceOver, reading(1, 0)]);
            assert_eq!(world.end, Some(End::TimedOut));
        }
        assert_eq!(world.states(), [("v1", Draining), ("v2", Serving)]);
    }
}

#[test]
fn a_service_that_is_in_order_is_left_alone() {
    for mut world in [
        World::new(3),
        World::with_instances(3),
        timed_out(World::with_instances(2), "v2"),
    ] {
        world.load();
        assert_eq!(resume(&world.service), Decision::unchanged(&world.service));
    }
}

#[test]
fn slots_that_belong_to_nobody_are_cleared() {
    let mut world = World::with_instances(2);
    world.kernel.instances.retain(|_, it| it.state == Serving);
    world.load();
    let decision = resume(&world.service);
    assert_eq!(World::names(&decision.effects), ["clear"; 4]);
    world.perform(decision);
    let refusal = world.migrate("v2", keep());
    assert!(matches!(refusal, Err(Refusal::UnknownInstance { .. })));
}
