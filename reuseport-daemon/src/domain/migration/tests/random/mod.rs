//! Whatever happens, in whatever order, with the daemon killed at any point.

mod simulation;
mod traffic;

use proptest::{option::weighted, prelude::*};

use super::reading;
use crate::domain::{Drain, Observation, Retire};
use simulation::Simulation;
use traffic::{Flow, Traffic};

/// How many processes there are at most at a time.
const PROCESSES: u32 = 5;

#[derive(Clone, Debug)]
struct Step {
    op: Op,
    killed: Option<Killed>,
}

/// The daemon is killed while it performs what the step led to.
#[derive(Clone, Debug)]
struct Killed {
    /// After so many effects.
    after: usize,
    /// And the next one, after so many of its own.
    again: Option<usize>,
    /// A process that ends before there is another daemon.
    meanwhile: Option<u32>,
}

#[derive(Clone, Debug)]
enum Op {
    /// A process starts, unless it runs, and registers.
    Register {
        who: u32,
        listeners: usize,
        named: bool,
    },
    /// A process closes a listener and opens others, and registers again.
    Reopen {
        who: u32,
        group: usize,
        listeners: usize,
    },
    Release(usize),
    Migrate {
        to: usize,
        drain: Drain,
        retire: Retire,
        patience: u64,
        traffic: Traffic,
    },
    RollBack,
    /// What is waited for is seen, as it is.
    Observe,
    Miss,
    /// Something is seen that was not waited for.
    Stale(Observation),
    /// Connections of the instances that are being drained come along.
    Flow(Flow),
    End(u32),
    /// A process closes its listeners in a group, or all but one of them, and is found out.
    Close {
        who: u32,
        group: usize,
        all: bool,
    },
    /// Connections have waited for as long as they may.
    ParkTimeout(usize),
    Tick(u64),
}

fn drains() -> impl Strategy<Value = Drain> {
    prop_oneof![
        Just(Drain::Owner),
        Just(Drain::Kernel),
        Just(Drain::Handoff)
    ]
}

fn retirements() -> impl Strategy<Value = Retire> {
    prop_oneof![
        Just(Retire::Keep),
        Just(Retire::Shutdown),
        Just(Retire::Signal(15))
    ]
}

fn traffic() -> impl Strategy<Value = Traffic> {
    (0..3u64, 0..3u64, 0..2u64, 0..3u64).prop_map(|(arriving, half_open, landing, queued)| {
        Traffic {
            arriving,
            half_open,
            landing,
            queued,
        }
    })
}

fn flows() -> impl Strategy<Value = Flow> {
    prop_oneof![
        Just(Flow::Arrive),
        Just(Flow::Complete),
        Just(Flow::Land),
        Just(Flow::Accept)
    ]
}

fn observations() -> impl Strategy<Value = Observation> {
    prop_oneof![
        Just(Observation::GraceOver),
        Just(Observation::Retired),
        Just(Observation::NotRetired),
        Just(Observation::Deaf),
        (0..3u64, 0..3u64).prop_map(|(handshakes, queued)| reading(handshakes, queued)),
    ]
}

fn ops() -> impl Strategy<Value = Op> {
    let who = || 1..=PROCESSES;
    let which = || 0..usize::try_from(PROCESSES).expect("few");
    prop_oneof![
        4 => (who(), 1..=3usize, prop::bool::ANY)
            .prop_map(|(who, listeners, named)| Op::Register { who, listeners, named }),
        1 => (who(), 0..3usize, 0..3usize)
            .prop_map(|(who, group, listeners)| Op::Reopen { who, group, listeners }),
        1 => which().prop_map(Op::Release),
        4 => (which(), drains(), retirements(), 0..200u64, traffic()).prop_map(
            |(to, drain, retire, patience, traffic)| {
                Op::Migrate { to, drain, retire, patience, traffic }
            }
        ),
        1 => Just(Op::RollBack),
        8 => Just(Op::Observe),
        1 => Just(Op::Miss),
        1 => observations().prop_map(Op::Stale),
        6 => flows().prop_map(Op::Flow),
        2 => who().prop_map(Op::End),
        2 => (who(), 0..3usize, prop::bool::ANY)
            .prop_map(|(who, group, all)| Op::Close { who, group, all }),
        1 => (0..3usize).prop_map(Op::ParkTimeout),
        1 => (0..100u64).prop_map(Op::Tick),
    ]
}

/// What happens while a migration drains.
fn draining() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => Just(Op::Observe),
        4 => flows().prop_map(Op::Flow),
        1 => Just(Op::Miss),
        1 => observations().prop_map(Op::Stale),
        1 => (0..10u64).prop_map(Op::Tick),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let killed = (
        0..24usize,
        weighted(0.3, 0..24usize),
        weighted(0.3, 1..=PROCESSES),
    )
        .prop_map(|(after, again, meanwhile)| Killed {
            after,
            again,
            meanwhile,
        });
    let step = (ops(), weighted(0.15, killed)).prop_map(|(op, killed)| Step { op, killed });
    prop::collection::vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn nothing_is_lost_and_somebody_serves(groups in 1..=3u16, steps in steps()) {
        let mut simulation = Simulation::new(groups);
        for step in &steps {
            simulation.step(step);
        }
        simulation.finish();
    }

    #[test]
    fn nothing_old_is_retired_before_it_is_empty(
        traffic in traffic(),
        drain in drains(),
        retire in retirements(),
        ops in prop::collection::vec(draining(), 1..60),
    ) {
        let mut simulation = Simulation::new(1);
        let begin = [
            Op::Register { who: 1, listeners: 1, named: true },
            Op::Register { who: 2, listeners: 1, named: true },
            Op::Migrate { to: 1, drain, retire, patience: 100, traffic },
        ];
        for op in begin.into_iter().chain(ops) {
            simulation.step(&Step { op, killed: None });
        }
        simulation.finish();
    }
}
