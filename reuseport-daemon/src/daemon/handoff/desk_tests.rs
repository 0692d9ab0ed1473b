//! The desk, with receivers that are only the ends of their calls.

use std::{
    collections::BTreeSet,
    os::{fd::OwnedFd, unix::net::UnixStream},
    sync::Arc,
};

use tokio::sync::mpsc;

use super::desk::{Acknowledged, Connection, Desk, ReceiverId, UNACKNOWLEDGED};
use crate::{
    api::{Replier, Told, wire::Reply},
    domain::ProcessId,
    sys::passed::{Closer, Passed},
};

const FIRST_ID: u64 = 1000;

/// A receiver's call.
struct Call {
    id: ReceiverId,
    process: ProcessId,
    told: mpsc::Receiver<Told>,
    // The call lasts as long as these.
    _ends: Box<dyn std::any::Any>,
}

impl Call {
    /// The ids of what has been handed over since it was asked last.
    fn ids(&mut self) -> Vec<u64> {
        let mut ids = Vec::new();
        while let Ok(told) = self.told.try_recv() {
            let Reply::Handed(handed) = told.reply else {
                panic!("not a connection");
            };
            assert!(told.descriptor.is_some());
            ids.push(handed.id);
        }
        ids
    }
}

fn process(pid: u32) -> ProcessId {
    ProcessId { pid, start_time: 1 }
}

fn subscribe(desk: &mut Desk, pid: u32) -> Option<Call> {
    let (replier, told, last) = Replier::new();
    let process = process(pid);
    Some(Call {
        id: desk.subscribe(process, replier.feed())?,
        process,
        told,
        _ends: Box::new((replier, last)),
    })
}

fn connection() -> Connection {
    let (socket, _) = UnixStream::pair().expect("a pair");
    let closer = Arc::<Closer>::default();
    Connection {
        socket: Arc::new(Passed::new(OwnedFd::from(socket), &closer)),
        closer,
        listen: "0.0.0.0:7777".to_owned(),
        peer: "10.0.0.1:4321".to_owned(),
    }
}

fn team(calls: &[&Call]) -> BTreeSet<ReceiverId> {
    calls.iter().map(|it| it.id).collect()
}

/// Receivers, as many connections as they take, and nobody has acknowledged any.
fn full(receivers: u32) -> (Desk, Vec<Call>) {
    let mut desk = Desk::new(FIRST_ID);
    let calls: Vec<_> = (1..=receivers)
        .map(|pid| subscribe(&mut desk, pid).expect("a place"))
        .collect();
    let team = calls.iter().map(|it| it.id).collect();
    while desk.has_room(&team) {
        desk.give(connection(), &team);
    }
    (desk, calls)
}

fn is_now(acknowledged: &Acknowledged) -> bool {
    matches!(acknowledged, Acknowledged::Now(_))
}

fn is_others(acknowledged: &Acknowledged) -> bool {
    matches!(acknowledged, Acknowledged::Others)
}

#[test]
fn connections_are_spread_over_the_team_as_far_as_it_has_room() {
    let mut desk = Desk::new(FIRST_ID);
    let mut calls: Vec<_> = (1..=3)
        .map(|pid| subscribe(&mut desk, pid).expect("a place"))
        .collect();
    let team = team(&[&calls[0], &calls[1]]);
    for _ in 0..6 {
        desk.give(connection(), &team);
    }
    let got: Vec<usize> = calls.iter_mut().map(|it| it.ids().len()).collect();
    assert_eq!(got, [3, 3, 0]);
    while desk.has_room(&team) {
        desk.give(connection(), &team);
    }
    assert_eq!((desk.given(), desk.waiting()), (2 * UNACKNOWLEDGED, 0));
    desk.give(connection(), &team);
    assert_eq!((desk.given(), desk.waiting()), (2 * UNACKNOWLEDGED, 1));
}

#[test]
fn an_acknowledgement_makes_room_and_is_the_receivers_alone() {
    let (mut desk, mut calls) = full(2);
    let ids = calls[0].ids();
    assert!(is_others(&desk.acknowledge(ids[0], calls[1].process)));
    let later = ProcessId {
        start_time: 2,
        ..calls[0].process
    };
    assert!(is_others(&desk.acknowledge(ids[0], later)));
    assert!(!desk.has_room(&team(&[&calls[0]])));
    assert!(is_now(&desk.acknowledge(ids[0], calls[0].process)));
    assert!(desk.has_room(&team(&[&calls[0]])));
    assert_eq!(desk.acknowledged(), 1);
    // To ask again is fine, and what an earlier daemon gave is nobody else's.
    for id in [ids[0], FIRST_ID - 1] {
        let acknowledged = desk.acknowledge(id, calls[0].process);
        assert!(matches!(acknowledged, Acknowledged::Before));
    }
    assert!(is_others(&desk.acknowledge(u64::MAX, calls[0].process)));
    assert_eq!(desk.acknowledged(), 1);
}

#[test]
fn what_one_leaves_goes_to_another_under_another_id() {
    let (mut desk, mut calls) = full(1);
    let before = calls[0].ids();
    assert!(is_now(&desk.acknowledge(before[0], calls[0].process)));
    desk.leave(calls[0].id);
    assert_eq!((desk.given(), desk.waiting()), (0, UNACKNOWLEDGED - 1));
    for id in &before[1..] {
        assert!(is_others(&desk.acknowledge(*id, calls[0].process)));
    }
    // Gone, and no good for anything.
    desk.give_waiting(&team(&[&calls[0]]), |_| false);
    assert_eq!(desk.waiting(), UNACKNOWLEDGED - 1);

    let mut next = subscribe(&mut desk, 7).expect("a place");
    desk.give_waiting(&team(&[&next]), |_| false);
    let after = next.ids();
    assert_eq!(after.len(), UNACKNOWLEDGED - 1);
    assert!(after.iter().all(|id| !before.contains(id)));
    for id in after {
        assert!(is_now(&desk.acknowledge(id, next.process)));
    }
    assert_eq!((desk.given(), desk.waiting()), (0, 0));
}

#[test]
fn a_receiver_whose_call_has_just_ended_gets_nothing() {
    let mut desk = Desk::new(FIRST_ID);
    let gone = subscribe(&mut desk, 1).expect("a place");
    let mut there = subscribe(&mut desk, 2).expect("a place");
    let team = team(&[&gone, &there]);
    drop(gone);
    desk.give(connection(), &team);
    assert_eq!(there.ids().len(), 1);
    drop(there);
    desk.give(connection(), &team);
    assert_eq!((desk.given(), desk.waiting()), (1, 1));
}

#[test]
fn what_waits_and_is_gone_is_let_go_of() {
    let mut desk = Desk::new(FIRST_ID);
    desk.give(connection(), &BTreeSet::new());
    desk.give(connection(), &BTreeSet::new());
    desk.give_waiting(&BTreeSet::new(), |_| false);
    assert_eq!(desk.waiting(), 2);
    desk.give_waiting(&BTreeSet::new(), |_| true);
    assert_eq!(desk.waiting(), 0);
}

#[test]
fn one_that_is_dismissed_keeps_what_it_has() {
    let (mut desk, mut calls) = full(2);
    desk.dismiss(calls[0].id);
    assert_eq!((desk.given(), desk.waiting()), (UNACKNOWLEDGED, 0));
    let id = calls[0].ids()[0];
    let acknowledged = desk.acknowledge(id, calls[0].process);
    assert!(matches!(acknowledged, Acknowledged::Before));
}

#[test]
fn there_are_only_so_many_receivers() {
    let mut desk = Desk::new(FIRST_ID);
    let calls: Vec<_> = (1..).map_while(|pid| subscribe(&mut desk, pid)).collect();
    assert_eq!(calls.len(), 64);
    desk.leave(calls[0].id);
    assert!(subscribe(&mut desk, 1).is_some());
}
