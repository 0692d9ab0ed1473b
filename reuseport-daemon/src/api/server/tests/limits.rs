//! What a client cannot make the server hold, or lose.

use super::*;

#[tokio::test]
async fn a_call_that_is_too_long_ends_the_connection() {
    let fixture = Fixture::start(Limits::default());
    let answers = raw(&fixture.path(), vec![b'x'; 80 << 10], TO_THE_END).await;
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0]["error"], "io.reuseportd.RequestTooLarge");

    let mut longest = br#"{"method":"org.varlink.service.GetInfo","x":""#.to_vec();
    longest.resize((64 << 10) - 2, b'x');
    longest.extend(b"\"}\0");
    let answers = raw(&fixture.path(), longest, 1).await;
    assert_eq!(answers[0]["parameters"]["product"], "reuseportd");
    fixture.stop().await;
}

#[tokio::test]
async fn half_a_call_is_not_waited_for_long() {
    let fixture = Fixture::start(Limits {
        patience: Duration::from_millis(50),
        ..Limits::default()
    });
    // One that says nothing at all may stay.
    let mut silent = Raw::connect(fixture.path()).expect("connect");
    let answers = raw(&fixture.path(), b"{\"method\":".as_slice(), TO_THE_END).await;
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0]["error"], "io.reuseportd.MalformedRequest");
    assert_eq!(answers[0]["parameters"]["reason"], "stalled");
    let info = message(&json!({"method": "org.varlink.service.GetInfo"}));
    silent.write_all(&info).expect("still connected");
    let reading = tokio::task::spawn_blocking(move || read_messages(&mut silent, 1));
    let answers = soon(reading).await.expect("no panic");
    assert_eq!(answers[0]["parameters"]["product"], "reuseportd");
    fixture.stop().await;
}

#[tokio::test]
async fn descriptors_are_close_on_exec_and_closed_after_the_call() {
    let mut fixture = Fixture::start(Limits::default());
    let mut client = Client::connect(&fixture.path()).await.expect("connect");
    let (reader, writer) = io::pipe().expect("pipe");
    let register = Register {
        service: "game".to_owned(),
        ..Register::default()
    };
    let registered = Registered {
        changed: true,
        label: "g1".to_owned(),
        generation: 1,
        state: "serving".to_owned(),
        listeners: 1,
    };
    let asking = client.call::<_, Registered>("Register", &register, vec![writer.into()]);
    let driving = async {
        let envelope = fixture.call().await;
        assert_eq!(envelope.fds.len(), 1);
        for fd in &envelope.fds {
            let flags = fcntl_getfd(fd).expect("F_GETFD");
            assert!(flags.contains(FdFlags::CLOEXEC));
        }
        drop(envelope.fds);
        envelope
            .replier
            .finish(Ok(Reply::Registered(registered.clone())));
    };
    let (answer, ()) = tokio::join!(asking, driving);
    assert_eq!(answer.expect("answer"), registered);
    assert!(nobody_writes(reader).await);

    // A method that has no use for descriptors does not pass them on.
    let (reader, writer) = io::pipe().expect("pipe");
    let filter = ServiceFilter::default();
    let asking = client.call::<_, Status>("Status", &filter, vec![writer.into()]);
    let driving = async {
        let envelope = fixture.call().await;
        assert!(envelope.fds.is_empty());
        assert!(nobody_writes(reader).await);
        let status = Reply::Status(Status::default());
        envelope.replier.finish(Ok(status));
    };
    let (answer, ()) = tokio::join!(asking, driving);
    answer.expect("answer");
    fixture.stop().await;
}

#[tokio::test]
async fn descriptors_of_the_next_call_hold_nobody_up() {
    let mut fixture = Fixture::start(Limits::default());
    let mut stream = Raw::connect(fixture.path()).expect("connect");
    let (reader, writer) = io::pipe().expect("pipe");
    // Both are there before the server reads, and one read brings both, with what is the second's.
    let ask = |method: &str| message(&json!({"method": method, "parameters": {"service": "game"}}));
    stream
        .write_all(&ask("io.reuseportd.Status"))
        .expect("write");
    let register = ask("io.reuseportd.Register");
    unix_socket::send(&stream, &register, &[writer.as_fd()]).expect("send");
    drop(writer);
    let first = fixture.call().await;
    assert!(first.fds.is_empty());
    first.replier.finish(Ok(Reply::Status(Status::default())));
    let second = fixture.call().await;
    assert_eq!(second.fds.len(), 1);
    drop(second.fds);
    second.replier.finish(Ok(Reply::Changed(changed())));
    let reading = tokio::task::spawn_blocking(move || read_messages(&mut stream, 2));
    assert_eq!(soon(reading).await.expect("no panic").len(), 2);
    assert!(nobody_writes(reader).await);
    fixture.stop().await;
}

/// Reads the end of a pipe, which comes when the last writer is closed.
async fn nobody_writes(mut reader: io::PipeReader) -> bool {
    let reading = tokio::task::spawn_blocking(move || reader.read(&mut [0; 1]));
    soon(reading).await.expect("no panic").expect("read") == 0
}

#[tokio::test]
async fn more_descriptors_than_a_call_may_bring_are_refused() {
    let fixture = Fixture::start(Limits::default());
    let path = fixture.path();
    let sending = tokio::task::spawn_blocking(move || {
        let mut stream = Raw::connect(path).expect("connect");
        let null = File::open("/dev/null").expect("open");
        let fds = vec![null.as_fd(); crate::api::MAX_DESCRIPTORS + 1];
        let call = message(&json!({
            "method": "io.reuseportd.Register",
            "parameters": {"service": "game"}
        }));
        unix_socket::send(&stream, &call, &fds).expect("send");
        read_messages(&mut stream, TO_THE_END)
    });
    let answers = soon(sending).await.expect("no panic");
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0]["error"], "io.reuseportd.Refused");
    assert_eq!(answers[0]["parameters"]["reason"], "too-many-descriptors");
    fixture.stop().await;
}

/// Has a process of its own, since a limit of open files is for all threads of one.
#[test]
fn descriptors_that_are_lost_are_told() {
    const CHILD: &str = "REUSEPORTD_TEST_LOSE_DESCRIPTORS";
    if std::env::var_os(CHILD).is_some() {
        lose_descriptors();
        return;
    }
    let name = "api::server::tests::limits::descriptors_that_are_lost_are_told";
    let child = std::process::Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", name, "--test-threads=1"])
        .env(CHILD, "1")
        .output()
        .expect("run");
    assert!(child.status.success(), "{child:?}");
    assert!(String::from_utf8_lossy(&child.stdout).contains("1 passed"));
}

fn lose_descriptors() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime");
    runtime.block_on(async {
        let fixture = Fixture::start(Limits::default());
        let client = Raw::connect(fixture.path()).expect("connect");
        let mut reading = client.try_clone().expect("duplicate");
        // Served once, the connection has its descriptor; nothing else is opened from here on.
        let info = message(&json!({"method": "org.varlink.service.GetInfo"}));
        (&client).write_all(&info).expect("write");
        let reader = tokio::task::spawn_blocking(move || {
            let first = read_messages(&mut reading, 1);
            (reading, first)
        });
        let (mut reading, first) = soon(reader).await.expect("no panic");
        assert_eq!(first.len(), 1);

        let null = File::open("/dev/null").expect("open");
        let highest = u64::try_from(std::os::fd::AsRawFd::as_raw_fd(&null)).expect("positive");
        let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        limit.current = Some(highest + 8);
        rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).expect("limit");

        let call = message(&json!({
            "method": "io.reuseportd.Register",
            "parameters": {"service": "game"}
        }));
        unix_socket::send(&client, &call, &[null.as_fd(); 100]).expect("send");
        let reader = tokio::task::spawn_blocking(move || read_messages(&mut reading, TO_THE_END));
        let answers = soon(reader).await.expect("no panic");
        assert_eq!(answers.len(), 1);
        assert_eq!(answers[0]["error"], "io.reuseportd.Failed");
        assert_eq!(answers[0]["parameters"]["reason"], "descriptors-lost");

        // Out of descriptors, the server neither spins nor ends: a client that comes now is served
        // when some are given back.
        let mut waiting = Raw::connect(fixture.path()).expect("connect");
        let mut hoard = Vec::new();
        while let Ok(file) = File::open("/dev/null") {
            hoard.push(file);
        }
        waiting.write_all(&info).expect("write");
        let reader = tokio::task::spawn_blocking(move || read_messages(&mut waiting, 1));
        tokio::task::yield_now().await;
        drop(hoard);
        assert_eq!(soon(reader).await.expect("no panic").len(), 1);
        fixture.stop().await;
    });
}

#[tokio::test]
async fn two_hundred_clients_at_once() {
    const CLIENTS: usize = 200;
    let mut fixture = Fixture::start(Limits::default());
    let path = fixture.path();
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let path = path.clone();
        clients.spawn(async move {
            let mut client = Client::connect(&path).await.expect("connect");
            let filter = ServiceFilter::default();
            client
                .call::<_, Status>("Status", &filter, Vec::new())
                .await
                .expect("answer");
        });
    }
    // All are with the driver before one is answered.
    let mut envelopes = Vec::new();
    for _ in 0..CLIENTS {
        envelopes.push(fixture.call().await);
    }
    for envelope in envelopes {
        let status = Reply::Status(Status::default());
        envelope.replier.finish(Ok(status));
    }
    while let Some(client) = soon(clients.join_next()).await {
        client.expect("no panic");
    }
    fixture.stop().await;
}

#[tokio::test]
async fn those_who_find_it_full_are_served_later() {
    let mut fixture = Fixture::start(Limits {
        connections: 2,
        ..Limits::default()
    });
    let info = message(&json!({"method": "org.varlink.service.GetInfo"}));
    let path = fixture.path();
    let first = Raw::connect(&path).expect("connect");
    let mut second = Raw::connect(&path).expect("connect");
    // It is accepted for certain once its call is with the driver.
    let status = message(&json!({"method": "io.reuseportd.Status"}));
    second.write_all(&status).expect("write");
    let envelope = fixture.call().await;
    let mut third = Raw::connect(&path).expect("the queue takes it");
    third.write_all(&info).expect("write");
    let waiting = tokio::task::spawn_blocking(move || read_messages(&mut third, 1));
    drop(first);
    assert_eq!(soon(waiting).await.expect("no panic").len(), 1);
    drop(envelope);
    fixture.stop().await;
}

#[tokio::test]
async fn those_who_ask_nothing_make_room_for_others() {
    let fixture = Fixture::start(Limits {
        connections: 2,
        patience: Duration::from_millis(50),
        ..Limits::default()
    });
    let path = fixture.path();
    let mut idle = [(); 2].map(|()| Raw::connect(&path).expect("connect"));
    let info = message(&json!({"method": "org.varlink.service.GetInfo"}));
    let answers = raw(&path, info, 1).await;
    assert_eq!(answers[0]["parameters"]["product"], "reuseportd");
    let reading = tokio::task::spawn_blocking(move || read_messages(&mut idle[0], TO_THE_END));
    let answers = soon(reading).await.expect("no panic");
    assert_eq!(answers[0]["parameters"]["reason"], "idle");
    fixture.stop().await;
}

#[tokio::test]
async fn there_is_a_place_even_where_there_is_none() {
    let fixture = Fixture::start(Limits {
        connections: 0,
        ..Limits::default()
    });
    let info = message(&json!({"method": "org.varlink.service.GetInfo"}));
    for _ in 0..2 {
        let answers = raw(&fixture.path(), info.clone(), 1).await;
        assert_eq!(answers[0]["parameters"]["product"], "reuseportd");
    }
    fixture.stop().await;
}

#[tokio::test]
async fn a_client_that_finds_nobody_says_which_way() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = directory.path().join("control");
    let absent = Client::connect(&path).await.expect_err("absent");
    assert!(matches!(absent, ClientError::Absent { .. }));
    drop(net::UnixListener::bind(&path).expect("a dead socket"));
    let dead = Client::connect(&path).await.expect_err("dead");
    assert!(matches!(dead, ClientError::NobodyThere { .. }));
}
