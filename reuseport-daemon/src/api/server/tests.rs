//! The protocol over a real socket, with a driver that answers as it is told.

use std::{
    fs::File,
    io::{Read, Write},
    os::{
        fd::AsFd,
        unix::{fs::PermissionsExt, net::UnixStream as Raw},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::io::{FdFlags, fcntl_getfd};
use serde_json::{Value, json};
use tokio::{sync::oneshot, task::JoinHandle, time::timeout};

use super::*;
use crate::api::{
    Scope,
    client::{Client, ClientError},
    wire::{
        self, Changed, Failure, MigrationReply, MigrationResult, NetCounters, Outcomes, Progress,
        Reason, Register, Registered, Reply, Request, ServiceFilter, ServiceRef, Status,
    },
};

/// A server, and the mailbox that its calls land in.
struct Fixture {
    directory: tempfile::TempDir,
    mailbox: mpsc::Receiver<Envelope>,
    stop: oneshot::Sender<()>,
    running: JoinHandle<Result<(), ServerError>>,
}

impl Fixture {
    /// A server to which whoever runs the tests is an administrator.
    fn start(limits: Limits) -> Self {
        Self::start_with(limits, Some(rustix::process::getegid().as_raw()))
    }

    fn start_with(limits: Limits, admin_group: Option<u32>) -> Self {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("control");
        let mut server = Server::bind(&path).expect("bind");
        server.admin_group = admin_group;
        let (sender, mailbox) = mpsc::channel(16);
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(server.with_limits(limits).run(sender, async {
            let _ = stopped.await;
        }));
        Self {
            directory,
            mailbox,
            stop,
            running,
        }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("control")
    }

    async fn call(&mut self) -> Envelope {
        soon(self.mailbox.recv()).await.expect("the server lives")
    }

    async fn stop(self) {
        let path = self.path();
        self.stop.send(()).expect("the server lives");
        soon(self.running)
            .await
            .expect("no panic")
            .expect("no error");
        assert!(!path.exists());
    }
}

/// Waits for an event, with a deadline.
async fn soon<T>(event: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), event)
        .await
        .expect("in time")
}

/// Sends raw bytes, and reads raw messages until the server has nothing more to say: after `count`
/// messages, or at the end of the stream.
async fn raw(path: &Path, sent: impl Into<Vec<u8>>, count: usize) -> Vec<Value> {
    let (path, sent) = (path.to_owned(), sent.into());
    let exchange = tokio::task::spawn_blocking(move || {
        let mut stream = Raw::connect(path).expect("connect");
        stream.write_all(&sent).expect("write");
        read_messages(&mut stream, count)
    });
    soon(exchange).await.expect("no panic")
}

fn read_messages(stream: &mut Raw, count: usize) -> Vec<Value> {
    let mut messages = Vec::new();
    let mut message = Vec::new();
    let mut byte = [0];
    while messages.len() < count {
        // A server that closes with unread bytes resets the connection.
        if stream.read(&mut byte).unwrap_or(0) == 0 {
            break;
        }
        if byte[0] == 0 {
            messages.push(serde_json::from_slice(&message).expect("JSON"));
            message.clear();
        } else {
            message.push(byte[0]);
        }
    }
    messages
}

/// One message more than can come, so that the end of the stream is waited for.
const TO_THE_END: usize = usize::MAX;

fn message(value: &Value) -> Vec<u8> {
    let mut bytes = value.to_string().into_bytes();
    bytes.push(0);
    bytes
}

fn changed() -> Changed {
    Changed {
        changed: true,
        message: "done".to_owned(),
    }
}

fn game() -> ServiceRef {
    ServiceRef {
        service: "game".to_owned(),
    }
}

fn progress(phase: &str) -> MigrationReply {
    MigrationReply {
        progress: Some(Progress {
            phase: phase.to_owned(),
            elapsed_ms: 1,
            handshakes: None,
            queued: None,
        }),
        result: None,
    }
}

fn result() -> MigrationReply {
    MigrationReply {
        progress: None,
        result: Some(MigrationResult {
            service: "game".to_owned(),
            from: vec!["v1".to_owned()],
            to: "v2".to_owned(),
            outcome: "done".to_owned(),
            switch_us: 1,
            drain_ms: 2,
            handshakes_waited: 0,
            accepted_while_draining: 0,
            moved_by_kernel: 0,
            handed_off: 0,
            left_behind: 0,
            counters: NetCounters::default(),
            outcomes: Outcomes::default(),
        }),
    }
}

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
        assert_eq!(envelope.caller.pid, std::process::id());
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
    assert_eq!(described, Some(include_str!("../io.reuseportd.varlink")));
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
        pid: None,
        label: None,
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
    let name = "api::server::tests::descriptors_that_are_lost_are_told";
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
        for phase in ["preflight", "staged"] {
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
        [progress("preflight"), progress("staged"), result()]
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
async fn a_client_that_finds_nobody_says_which_way() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = directory.path().join("control");
    let absent = Client::connect(&path).await.expect_err("absent");
    assert!(matches!(absent, ClientError::Absent { .. }));
    drop(net::UnixListener::bind(&path).expect("a dead socket"));
    let dead = Client::connect(&path).await.expect_err("dead");
    assert!(matches!(dead, ClientError::NobodyThere { .. }));
}

#[tokio::test]
async fn a_large_status_arrives_whole() {
    let mut fixture = Fixture::start(Limits::default());
    let mut client = Client::connect(&fixture.path()).await.expect("connect");
    let service = wire::ServiceStatus {
        name: "x".repeat(1000),
        owner: 0,
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
