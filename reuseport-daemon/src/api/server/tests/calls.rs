//! Calls, and what becomes of them.

use super::*;

#[tokio::test]
async fn a_call_reaches_the_driver_and_its_answer_the_client() {
    let mut fixture = Fixture::start(Limits::default());
    let mut client = Client::connect(&fixture.path()).await.expect("connect");
    let asking = async {
        client
            .call::<_, Changed>("Rollback", &game(), Vec::new())
            .await
    };
    let driving = async {
        let envelope = fixture.call().await;
        assert_eq!(envelope.request, Request::Rollback(game()));
        assert_eq!(envelope.caller.uid, rustix::process::geteuid().as_raw());
        assert_eq!(
            envelope.caller.process.map(|it| it.pid),
            Some(std::process::id())
        );
        assert_eq!(envelope.scope, Scope::All);
        envelope.replier.finish(Ok(Reply::Changed(changed())));
    };
    let (answer, ()) = tokio::join!(asking, driving);
    assert_eq!(answer.expect("answer"), changed());

    let failure = Failure::Refused(Reason {
        reason: "nothing-to-roll-back".to_owned(),
        message: "no".to_owned(),
        hint: Some("do".to_owned()),
    });
    let asking = async {
        client
            .call::<_, Changed>("Rollback", &game(), Vec::new())
            .await
    };
    let driving = async {
        fixture.call().await.replier.finish(Err(failure.clone()));
    };
    let (answer, ()) = tokio::join!(asking, driving);
    match answer {
        Err(ClientError::Failure(found)) => assert_eq!(found, failure),
        other => panic!("{other:?}"),
    }
    fixture.stop().await;
}

/// A thread may give up root for itself, and connects as who it is then.
#[tokio::test]
async fn another_user_may_ask_for_little() {
    let mut fixture = Fixture::start_with(Limits::default(), None);
    let path = fixture.path();
    let reachable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(fixture.directory.path(), reachable).expect("mode");
    let asking = tokio::task::spawn_blocking(|| {
        let asking = std::thread::spawn(move || {
            if rustix::process::geteuid().is_root() {
                let nobody = rustix::process::Uid::from_raw(65_534);
                rustix::thread::set_thread_res_uid(nobody, nobody, nobody).expect("setresuid");
            }
            let mut stream = Raw::connect(path).expect("connect");
            let mut sent = message(&json!({
                "method": "io.reuseportd.RemoveService",
                "parameters": {"service": "game"}
            }));
            sent.extend(message(&json!({"method": "io.reuseportd.Status"})));
            stream.write_all(&sent).expect("write");
            read_messages(&mut stream, 2)
        });
        asking.join().expect("no panic")
    });
    let envelope = fixture.call().await;
    assert_eq!(envelope.request, Request::Status(ServiceFilter::default()));
    assert_ne!(envelope.caller.uid, 0);
    assert_eq!(envelope.scope, Scope::OwnedBy(envelope.caller.uid));
    let status = Reply::Status(Status::default());
    envelope.replier.finish(Ok(status));
    let answers = soon(asking).await.expect("no panic");
    assert_eq!(answers[0]["error"], "io.reuseportd.NotPermitted");
    assert_eq!(answers[0]["parameters"]["reason"], "not-permitted");
    assert_eq!(answers[1]["parameters"], json!({"services": []}));
    fixture.stop().await;
}

#[tokio::test]
async fn what_is_asked_wrongly_is_answered_in_varlinks_words() {
    let fixture = Fixture::start(Limits::default());
    let cases = [
        (
            json!({"method": "io.reuseportd.Fly"}),
            json!({"error": "org.varlink.service.MethodNotFound",
                   "parameters": {"method": "io.reuseportd.Fly"}}),
        ),
        (
            json!({"method": "Status"}),
            json!({"error": "org.varlink.service.MethodNotFound",
                   "parameters": {"method": "Status"}}),
        ),
        (
            json!({"method": "com.example.Fly"}),
            json!({"error": "org.varlink.service.InterfaceNotFound",
                   "parameters": {"interface": "com.example"}}),
        ),
        (
            json!({"method": "io.reuseportd.Register", "parameters": {"service": 5}}),
            json!({"error": "org.varlink.service.InvalidParameter",
                   "parameters": {"parameter": "service"}}),
        ),
        (
            json!({"method": "io.reuseportd.Register", "parameters": {"pid": 5}}),
            json!({"error": "org.varlink.service.InvalidParameter",
                   "parameters": {"parameter": "service"}}),
        ),
        (
            json!({"method": "io.reuseportd.Status", "parameters": {"colour": "red"}}),
            json!({"error": "org.varlink.service.InvalidParameter",
                   "parameters": {"parameter": "colour"}}),
        ),
        (
            json!({"method": "io.reuseportd.Migrate", "parameters": {"service": "game"}}),
            json!({"error": "org.varlink.service.ExpectedMore"}),
        ),
        (
            json!({"method": "io.reuseportd.Status", "upgrade": true}),
            json!({"error": "org.varlink.service.MethodNotImplemented",
                   "parameters": {"method": "io.reuseportd.Status"}}),
        ),
        (
            json!({"method": "org.varlink.service.GetInterfaceDescription",
                   "parameters": {"interface": "com.example"}}),
            json!({"error": "org.varlink.service.InterfaceNotFound",
                   "parameters": {"interface": "com.example"}}),
        ),
    ];
    // All on one connection: each leaves it usable.
    let sent: Vec<u8> = cases.iter().flat_map(|(call, _)| message(call)).collect();
    let answers = raw(&fixture.path(), sent, cases.len()).await;
    for ((call, expected), answer) in cases.iter().zip(&answers) {
        assert_eq!(answer["error"], expected["error"], "{call}");
        let parameters = expected.get("parameters");
        assert_eq!(answer.get("parameters"), parameters, "{call}");
    }
    assert_eq!(answers.len(), cases.len());
    fixture.stop().await;
}

#[tokio::test]
async fn the_interface_describes_itself() {
    let fixture = Fixture::start(Limits::default());
    let mut sent = message(&json!({"method": "org.varlink.service.GetInfo"}));
    for interface in ["io.reuseportd", "org.varlink.service"] {
        sent.extend(message(&json!({
            "method": "org.varlink.service.GetInterfaceDescription",
            "parameters": {"interface": interface}
        })));
    }
    let answers = raw(&fixture.path(), sent, 3).await;
    let info = &answers[0]["parameters"];
    assert_eq!(info["product"], "reuseportd");
    assert_eq!(
        info["interfaces"],
        json!(["io.reuseportd", "org.varlink.service"])
    );
    let described = answers[1]["parameters"]["description"].as_str();
    assert_eq!(described, Some(include_str!("../../io.reuseportd.varlink")));
    let described = answers[2]["parameters"]["description"].as_str();
    assert!(described.is_some_and(|text| text.contains("interface org.varlink.service")));
    fixture.stop().await;
}

#[tokio::test]
async fn malformed_messages_are_answered_and_survived() {
    let fixture = Fixture::start(Limits::default());
    let sent = b"{\"method\":\0[1,2]\0{\"parameters\":{}}\0\
        {\"method\":\"io.reuseportd.Status\",\"parameters\":[]}\0\
        {\"method\":\"org.varlink.service.GetInfo\"}\0";
    let answers = raw(&fixture.path(), sent.as_slice(), 5).await;
    assert_eq!(answers.len(), 5);
    for answer in &answers[..4] {
        assert_eq!(answer["error"], "io.reuseportd.MalformedRequest");
        assert_eq!(answer["parameters"]["reason"], "malformed-request");
    }
    assert_eq!(answers[4]["parameters"]["product"], "reuseportd");
    fixture.stop().await;
}

#[tokio::test]
async fn progress_is_streamed_to_those_who_asked_for_more() {
    let mut fixture = Fixture::start(Limits::default());
    let mut client = Client::connect(&fixture.path()).await.expect("connect");
    let migrate = wire::Migrate {
        service: "game".to_owned(),
        to: Some("v2".to_owned()),
        ..wire::Migrate::default()
    };
    let asking = async {
        let mut replies = client
            .stream::<_, MigrationReply>("Migrate", &migrate)
            .await
            .expect("call");
        let mut all = Vec::new();
        while let Some(reply) = replies.next().await.expect("reply") {
            all.push(reply);
        }
        all
    };
    let driving = async {
        let envelope = fixture.call().await;
        assert_eq!(envelope.request, Request::Migrate(migrate.clone()));
        for phase in ["staged", "switched"] {
            let reply = Reply::Migration(Box::new(progress(phase)));
            envelope.replier.progress(reply);
        }
        envelope
            .replier
            .finish(Ok(Reply::Migration(Box::new(result()))));
    };
    let (replies, ()) = tokio::join!(asking, driving);
    assert_eq!(
        replies,
        [progress("staged"), progress("switched"), result()]
    );

    // The raw replies say which one is the last; and who does not ask for more gets one.
    for (more, expected) in [
        (true, vec![json!(true), Value::Null]),
        (false, vec![Value::Null]),
    ] {
        let call = message(&json!({"method": "io.reuseportd.Doctor", "more": more}));
        let path = fixture.path();
        let asking = raw(&path, call, expected.len());
        let driving = async {
            let envelope = fixture.call().await;
            let reply = Reply::Migration(Box::new(progress("staged")));
            envelope.replier.progress(reply);
            let doctor = Reply::Doctor(wire::Doctor::default());
            envelope.replier.finish(Ok(doctor));
        };
        let (answers, ()) = tokio::join!(asking, driving);
        let continues: Vec<Value> = answers.iter().map(|a| a["continues"].clone()).collect();
        assert_eq!(continues, expected);
    }
    fixture.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_stops_nothing() {
    let mut fixture = Fixture::start(Limits::default());
    let mut client = Raw::connect(fixture.path()).expect("connect");
    let call = message(&json!({
        "method": "io.reuseportd.Migrate",
        "parameters": {"service": "game"},
        "more": true
    }));
    client.write_all(&call).expect("write");
    let envelope = fixture.call().await;
    drop(client);
    for _ in 0..100 {
        let reply = Reply::Migration(Box::new(progress("draining")));
        envelope.replier.progress(reply);
        tokio::task::yield_now().await;
    }
    envelope
        .replier
        .finish(Ok(Reply::Migration(Box::new(result()))));
    let info = message(&json!({"method": "org.varlink.service.GetInfo"}));
    assert_eq!(raw(&fixture.path(), info, 1).await.len(), 1);
    fixture.stop().await;
}

#[tokio::test]
async fn a_oneway_call_is_done_and_not_answered() {
    let mut fixture = Fixture::start(Limits::default());
    let mut sent = message(&json!({"method": "io.reuseportd.Status", "oneway": true}));
    sent.extend(message(
        &json!({"method": "io.reuseportd.Fly", "oneway": true}),
    ));
    sent.extend(message(&json!({"method": "org.varlink.service.GetInfo"})));
    let path = fixture.path();
    let asking = raw(&path, sent, 1);
    let driving = async {
        let status = Reply::Status(Status::default());
        fixture.call().await.replier.finish(Ok(status));
    };
    let (answers, ()) = tokio::join!(asking, driving);
    assert_eq!(answers[0]["parameters"]["product"], "reuseportd");
    fixture.stop().await;
}

#[tokio::test]
async fn a_driver_that_ends_is_told_to_the_client() {
    let mut fixture = Fixture::start(Limits::default());
    let mut client = Client::connect(&fixture.path()).await.expect("connect");
    let filter = ServiceFilter::default();
    let asking = client.call::<_, Status>("Status", &filter, Vec::new());
    let driving = async { drop(fixture.call().await) };
    let (answer, ()) = tokio::join!(asking, driving);
    match answer {
        Err(ClientError::Failure(Failure::Failed(why))) => assert_eq!(why.reason, "stopping"),
        other => panic!("{other:?}"),
    }
    fixture.stop().await;
}

#[tokio::test]
async fn a_large_status_arrives_whole() {
    let mut fixture = Fixture::start(Limits::default());
    let mut client = Client::connect(&fixture.path()).await.expect("connect");
    let service = wire::ServiceStatus {
        name: "x".repeat(1000),
        owner: 0,
        units: None,
        netns: None,
        generation: 0,
        groups: Vec::new(),
        instances: Vec::new(),
        migration: None,
    };
    let status = Status {
        services: vec![service; 1000],
    };
    let filter = ServiceFilter::default();
    let asking = client.call::<_, Status>("Status", &filter, Vec::new());
    let driving = async {
        let reply = Reply::Status(status.clone());
        fixture.call().await.replier.finish(Ok(reply));
    };
    let (answer, ()) = tokio::join!(asking, driving);
    assert_eq!(answer.expect("answer"), status);
    fixture.stop().await;
}

#[tokio::test]
async fn a_caller_who_goes_away_is_noticed_at_once() {
    let mut fixture = Fixture::start(Limits::default());
    let mut client = Client::connect(&fixture.path()).await.expect("connect");
    let migrate = wire::Migrate {
        service: "game".to_owned(),
        to: Some("v2".to_owned()),
        wait_sessions_ms: Some(1),
        ..wire::Migrate::default()
    };
    let replies = client.stream::<_, MigrationReply>("Migrate", &migrate);
    let _ = replies.await.expect("call");
    let envelope = fixture.call().await;
    assert_eq!(envelope.request, Request::Migrate(migrate));
    drop(client);
    let gone = timeout(Duration::from_secs(10), envelope.replier.abandoned());
    gone.await.expect("noticed without a word from the driver");
    fixture.stop().await;
}
