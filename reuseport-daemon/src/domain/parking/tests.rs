//! One test for each edge of the diagram, and for what leaves a parking listener as it is.

use super::{
    super::testing::{World, process},
    *,
};
use crate::domain::{Definition, Observation, Refusal, listeners_closed};

fn standing(world: &World) -> Vec<Parking> {
    world.service.groups.iter().map(|it| it.parking).collect()
}

fn effects(decision: &Decision) -> Vec<&'static str> {
    World::names(&decision.effects)
}

/// A service of one group that nobody has ever served.
fn waiting() -> World {
    let mut world = World::new(1);
    world.park();
    assert_eq!(standing(&world), [Parking::Waiting]);
    world
}

fn serve(world: &mut World) {
    world.start(process(1), 1);
    world.register(process(1), None).expect("registered");
}

#[test]
fn connections_wait_before_the_first_instance() {
    let world = World::new(2);
    for group in 0..2 {
        let decision = park(&world.service, group);
        assert_eq!(effects(&decision), ["open-parking"]);
        assert_eq!(decision.next.groups[group].parking, Parking::Waiting);
    }
    assert_eq!(effects(&park(&world.service, 2)), [""; 0]);
}

#[test]
fn an_instance_that_is_there_already_makes_it_a_spare() {
    let mut world = waiting();
    serve(&mut world);
    world.load();
    assert_eq!(standing(&world), [Parking::Closed]);
    let decision = park(&world.service, 0);
    assert_eq!(effects(&decision), ["open-parking"]);
    assert_eq!(decision.next.groups[0].parking, Parking::Spare);
}

#[test]
fn the_first_instance_gets_what_has_waited() {
    let mut world = waiting();
    world.start(process(1), 1);
    let (decision, _) = world
        .decide_registration(process(1), None)
        .expect("registered");
    // The table names it by the time that this is decided.
    let decision = park(&decision.next, 0);
    assert_eq!(effects(&decision), ["rotate-parking"]);
    assert_eq!(decision.next.groups[0].parking, Parking::Spare);
}

#[test]
fn an_end_needs_nothing_but_the_spare_one() {
    let mut world = waiting();
    serve(&mut world);
    assert_eq!(standing(&world), [Parking::Spare]);
    world.end_process(process(1));
    assert_eq!(standing(&world), [Parking::Waiting]);
    assert_eq!(effects(&park(&world.service, 0)), [""; 0]);
}

#[test]
fn an_heir_leaves_it_spare() {
    let mut world = World::with_instances(2);
    world.end_process(process(1));
    assert_eq!(standing(&world), [Parking::Spare; 2]);
}

#[test]
fn when_the_time_is_up_it_is_closed_until_somebody_serves() {
    let mut world = waiting();
    let decision = park_timed_out(&world.service, 0);
    assert_eq!(effects(&decision), ["close-parking"]);
    world.perform(decision);
    assert_eq!(standing(&world), [Parking::TimedOut]);
    serve(&mut world);
    assert_eq!(standing(&world), [Parking::Spare]);
}

#[test]
fn a_time_that_is_up_too_late_changes_nothing() {
    let mut world = waiting();
    serve(&mut world);
    assert_eq!(effects(&park_timed_out(&world.service, 0)), [""; 0]);
    assert_eq!(effects(&park_timed_out(&world.service, 7)), [""; 0]);
}

#[test]
fn what_was_parked_all_the_same_moves_on() {
    let mut world = waiting();
    assert_eq!(effects(&parked(&world.service, 0)), [""; 0]);
    serve(&mut world);
    let decision = parked(&world.service, 0);
    assert_eq!(effects(&decision), ["rotate-parking"]);
    world.perform(decision);
    assert_eq!(standing(&world), [Parking::Spare]);
}

#[test]
fn one_that_closes_all_it_has_serves_no_more() {
    let mut world = World::with_instances(1);
    world.close(process(1));
    let decision = listeners_closed(&world.service, &world.closed());
    world.perform(decision);
    assert_eq!(standing(&world), [Parking::Waiting; 2]);
    assert_eq!(
        world.state("v1"),
        Some(crate::domain::InstanceState::Retired)
    );

    world.start(process(2), 1);
    world.register(process(2), Some("v2")).expect("registered");
    assert_eq!(
        world.state("v2"),
        Some(crate::domain::InstanceState::Serving)
    );
    assert_eq!(standing(&world), [Parking::Spare; 2]);
}

#[test]
fn one_that_listens_no_more_does_not_take_over() {
    let mut world = World::with_instances(2);
    let how = super::super::testing::keep();
    world.migrate("v2", how).expect("begun");
    let (grace, empty) = (
        Observation::GraceOver,
        Observation::Reading {
            handshakes: 0,
            queued: 0,
        },
    );
    world.see_all(&[grace, empty, grace, empty, Observation::Retired]);
    // It closes what it has, as after a signal, and lives on for its sessions.
    world.close(process(1));
    let decision = listeners_closed(&world.service, &world.closed());
    world.perform(decision);
    world.end_process(process(2));
    assert_eq!(
        world.state("v1"),
        Some(crate::domain::InstanceState::Retired)
    );
    assert_eq!(standing(&world), [Parking::Waiting; 2]);
}

#[test]
fn one_that_closes_a_group_is_waited_for_there_alone() {
    let mut world = World::with_instances(1);
    let listeners = world.service.listeners_of(crate::domain::Generation(1));
    let first: Vec<_> = listeners.filter(|(_, group)| *group == 0).collect();
    let closed: Vec<_> = first.into_iter().map(|(cookie, _)| cookie).collect();
    world.kernel.close(&closed);
    let decision = listeners_closed(&world.service, &world.closed());
    world.perform(decision);
    assert_eq!(standing(&world), [Parking::Waiting, Parking::Spare]);
    assert_eq!(
        world.state("v1"),
        Some(crate::domain::InstanceState::Serving)
    );
}

#[test]
fn a_migration_has_its_own_ways_with_what_closes() {
    let mut world = World::with_instances(2);
    world
        .migrate("v2", super::super::testing::keep())
        .expect("begun");
    world.see(Observation::GraceOver);
    let before = world.service.clone();
    let slots = before.groups.iter().flat_map(|it| it.slots.values());
    let every = slots.map(|it| it.cookie).collect();
    assert_eq!(
        listeners_closed(&world.service, &every),
        Decision::unchanged(&before)
    );
}

#[test]
fn a_service_that_goes_away_parks_no_more() {
    let mut world = waiting();
    let decision = stop_parking(&world.service);
    assert_eq!(effects(&decision), ["close-parking"]);
    world.perform(decision.clone());
    // The world opens it again at once, as a driver does whose removal of a service fails.
    assert_eq!(decision.next.groups[0].parking, Parking::Closed);
    assert_eq!(standing(&world), [Parking::Waiting]);
}

#[test]
fn one_whose_time_is_up_stays_closed_where_its_service_stays() {
    let mut world = waiting();
    world.perform(park_timed_out(&world.service, 0));
    let decision = stop_parking(&world.service);
    assert_eq!(effects(&decision), [""; 0]);
    world.perform(decision);
    assert_eq!(standing(&world), [Parking::TimedOut]);
}

#[test]
fn a_service_that_does_not_park_needs_nothing() {
    let mut world = World::new(1);
    world.service.definition.park_timeout = None;
    world.kernel.definition.park_timeout = None;
    assert_eq!(effects(&park(&world.service, 0)), [""; 0]);
    serve(&mut world);
    assert_eq!(standing(&world), [Parking::Closed]);
}

#[test]
fn a_time_to_wait_makes_sense_or_is_refused() {
    let parking = |park, timeout| {
        let definition = World::new(1).service.definition;
        definition.parking(park, timeout).map(|it| it.park_timeout)
    };
    let second = std::time::Duration::from_secs(1);
    assert_eq!(parking(false, None), Ok(None));
    assert_eq!(parking(true, None), Ok(Some(Definition::PARK_TIMEOUT)));
    assert_eq!(parking(true, Some(second)), Ok(Some(second)));
    for (park, timeout) in [
        (false, second),
        (true, std::time::Duration::from_micros(999)),
    ] {
        let refused = parking(park, Some(timeout));
        assert!(matches!(refused, Err(Refusal::Park(_))), "{refused:?}");
    }
}
