//! Connections that are handed over, with a driver that hands over pairs of unix sockets.

use std::os::fd::OwnedFd;

use super::*;
use crate::api::{
    Replier,
    receiver::Receiver,
    wire::{Acknowledge, Acknowledged, Handed},
};

fn handed(id: u64) -> Handed {
    Handed {
        id,
        listen: "0.0.0.0:7777".to_owned(),
        peer: "10.0.0.1:4321".to_owned(),
    }
}

/// Hands one end of a pair over, and keeps the other.
fn hand_over(replier: &Replier, id: u64) -> Raw {
    let (connection, peer) = Raw::pair().expect("a pair");
    let connection = Passed::new(connection.into(), &Arc::default());
    let reply = Reply::Handed(handed(id));
    assert!(replier.feed().hand_over(reply, Arc::new(connection)));
    peer
}

/// The driver takes a `Receive` call.
async fn receiving(fixture: &mut Fixture) -> Replier {
    let envelope = fixture.call().await;
    assert_eq!(envelope.request, Request::Receive(game()));
    envelope.replier
}

/// The driver answers an acknowledgement.
async fn answer(fixture: &mut Fixture, id: u64, yours: bool) {
    let envelope = fixture.call().await;
    let service = "game".to_owned();
    let expected = Request::Acknowledge(Acknowledge { service, id });
    assert_eq!(envelope.request, expected);
    let acknowledged = Reply::Acknowledged(Acknowledged { yours });
    envelope.replier.finish(Ok(acknowledged));
}

/// They are the two ends of one pair.
fn check_pair(connection: OwnedFd, mut peer: Raw) {
    let flags = fcntl_getfd(&connection).expect("flags");
    assert!(flags.contains(FdFlags::CLOEXEC));
    let mut connection = Raw::from(connection);
    connection.write_all(b"x").expect("write");
    // Nobody has a duplicate of it.
    drop(connection);
    let mut rest = Vec::new();
    peer.read_to_end(&mut rest).expect("read");
    assert_eq!(rest, b"x");
}

#[tokio::test]
async fn a_connection_comes_with_its_reply_and_is_acknowledged() {
    let mut fixture = Fixture::start(Limits::default());
    let path = fixture.path();
    let mut receiver = soon(Receiver::start(&path, "game")).await.expect("calls");
    let replier = receiving(&mut fixture).await;
    for round in 0..2 {
        let stale = hand_over(&replier, round * 2);
        let peer = hand_over(&replier, round * 2 + 1);
        let driving = async {
            answer(&mut fixture, round * 2, false).await;
            answer(&mut fixture, round * 2 + 1, true).await;
        };
        let (next, ()) = soon(async { tokio::join!(receiver.next(), driving) }).await;
        let (found, connection) = next.expect("a connection");
        assert_eq!(found, handed(round * 2 + 1));
        check_pair(connection, peer);
        // The one that is somebody else's is closed, unread and unwritten.
        let mut stale = stale;
        assert_eq!(stale.read(&mut [0]).expect("read"), 0);
    }
    replier.finish(Err(Failure::Failed(Reason {
        reason: "over".to_owned(),
        message: "over".to_owned(),
        hint: None,
    })));
    let end = soon(receiver.next()).await;
    assert!(matches!(end, Err(ClientError::Failure(_))), "{end:?}");
    fixture.stop().await;
}

#[tokio::test]
async fn what_a_daemon_handed_over_that_has_gone_is_the_receivers() {
    let mut fixture = Fixture::start(Limits::default());
    let path = fixture.path();
    let mut receiver = soon(Receiver::start(&path, "game")).await.expect("calls");
    let replier = receiving(&mut fixture).await;
    let peer = hand_over(&replier, 1);
    drop(replier);
    // What is on its way is sent before the daemon ends.
    fixture.stop().await;
    let (found, connection) = soon(receiver.next()).await.expect("a connection");
    assert_eq!(found, handed(1));
    check_pair(connection, peer);
    assert!(soon(receiver.next()).await.is_err());
}

#[tokio::test]
async fn a_caller_that_would_not_be_told_receives_nothing() {
    let mut fixture = Fixture::start(Limits::default());
    let call = |more: bool, oneway: bool| {
        message(&json!({
            "method": "io.reuseportd.Receive", "parameters": {"service": "game"},
            "more": more, "oneway": oneway
        }))
    };
    // Two that want no answer get none.
    let mut sent = [call(false, true), call(true, true), call(false, false)].concat();
    sent.extend(message(&json!({"method": "io.reuseportd.Status"})));
    let asking = tokio::spawn({
        let path = fixture.path();
        async move { raw(&path, sent, 2).await }
    });
    let envelope = fixture.call().await;
    assert_eq!(envelope.request, Request::Status(ServiceFilter::default()));
    envelope
        .replier
        .finish(Ok(Reply::Status(Status::default())));
    let answers = soon(asking).await.expect("no panic");
    assert_eq!(answers[0]["error"], "org.varlink.service.ExpectedMore");
    assert_eq!(answers[1]["parameters"], json!({"services": []}));
    fixture.stop().await;
}

#[tokio::test]
async fn a_receiver_that_goes_away_is_noticed() {
    let mut fixture = Fixture::start(Limits::default());
    let path = fixture.path();
    let receiver = soon(Receiver::start(&path, "game")).await.expect("calls");
    let replier = receiving(&mut fixture).await;
    drop(receiver);
    soon(replier.abandoned()).await;
    fixture.stop().await;
}
