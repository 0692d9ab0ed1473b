//! `tcp_migrate_req`, where a migration holds it on. That it is on while one does, and otherwise what
//! it was, is checked by [`World`] after every decision.

use super::{PHASES, migrating, phase_of, reading};
use crate::domain::{
    Decision, End, Observation, Options, Phase, Start, advance, migrate, process_ended, resume,
    roll_back,
    testing::{DEADLINE, World, drain, keep, label, process},
};

fn held() -> Options {
    Options {
        migrate_req: Some(false),
        ..keep()
    }
}

fn holding(phase: Phase) -> World {
    let world = migrating(World::with_instances(2), "v2", held(), phase);
    assert!(world.kernel.migrate_req);
    world
}

fn crashes(world: &World, decision: &Decision) {
    for after in 0..=decision.effects.len() {
        let mut killed = world.clone();
        killed.crash(decision, after);
        killed.load();
        let resumed = resume(&killed.service);
        for again in 0..=resumed.effects.len() {
            killed.clone().crash(&resumed, again);
        }
        killed.perform(resumed);
        if phase_of(&killed).is_some() {
            drain(&mut killed);
        }
        assert_eq!(phase_of(&killed), None);
        assert!(!killed.kernel.migrate_req);
    }
}

#[test]
fn it_is_turned_after_the_record_and_before_the_switch() {
    let world = World::with_instances(2);
    let Ok(Start::Begin(decision)) = migrate(&world.service, &label("v2"), held()) else {
        panic!("nothing is in the way");
    };
    let names = World::names(&decision.effects);
    assert_eq!(
        names[..3],
        ["record-migration", "hold-migrate-req", "write-table"]
    );
    crashes(&world, &decision);
}

#[test]
fn draining_on_holds_it_too() {
    let mut world = holding(Phase::Settling);
    world.now = DEADLINE;
    world.see(Observation::GraceOver);
    assert_eq!(world.end, Some(End::TimedOut));
    assert!(!world.kernel.migrate_req);
    world.now = 0;
    let Ok(Start::Begin(decision)) = migrate(&world.service, &label("v2"), held()) else {
        panic!("v1 is left to drain");
    };
    assert_eq!(
        World::names(&decision.effects)[..2],
        ["record-migration", "hold-migrate-req"]
    );
    crashes(&world, &decision);
}

#[test]
fn every_end_puts_it_back() {
    let mut done = holding(Phase::Retiring);
    let decision = advance(&done.service, Observation::Retired, 0);
    crashes(&done, &decision);
    done.perform(decision);
    assert_eq!(done.end, Some(End::Done));
    assert!(!done.kernel.migrate_req);

    for (phase, _) in PHASES.into_iter().filter(|(it, _)| *it != Phase::Retiring) {
        let mut back = holding(phase);
        crashes(&back, &roll_back(&back.service).expect("a way back"));
        assert_eq!(back.roll_back(), Ok(()));
        assert!(!back.kernel.migrate_req);
    }
    for (phase, _) in PHASES {
        let mut ended = holding(phase);
        let target = ended.service.find(&label("v2")).expect("v2");
        let decision = process_ended(&ended.service, target);
        ended.end_process(process(2));
        assert!(decision.end.is_some() && !ended.kernel.migrate_req);
    }
    let mut late = holding(Phase::Queues {
        pause: super::PAUSE,
    });
    late.now = DEADLINE;
    late.see(reading(1, 0));
    assert_eq!(late.end, Some(End::TimedOut));
    assert!(!late.kernel.migrate_req);
}

#[test]
fn what_was_on_stays_on() {
    let mut world = World::with_instances(2);
    world.kernel.migrate_req = true;
    world.kernel.migrate_req_before = true;
    let options = Options {
        migrate_req: Some(true),
        ..keep()
    };
    assert_eq!(world.migrate("v2", options), Ok(true));
    assert_eq!(world.roll_back(), Ok(()));
    assert!(world.kernel.migrate_req);
}
