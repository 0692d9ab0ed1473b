//! Descriptors that take long to close hold up nobody but who passed them.

use std::{
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::fd::OwnedFd,
    time::Instant,
};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use socket2::SockRef;

use super::*;

/// How long a close would take.
const LINGER: Duration = Duration::from_secs(60);
/// How long others may be held up.
const AT_ONCE: Duration = Duration::from_secs(5);

/// A connection whose last holder lingers until the other end is closed.
fn lingering() -> (OwnedFd, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
    let mut near = TcpStream::connect(listener.local_addr().expect("an address")).expect("connect");
    let (far, _) = listener.accept().expect("accept");
    near.set_nonblocking(true).expect("non-blocking");
    let bytes = vec![0; 1 << 16];
    while near.write(&bytes).is_ok() {}
    near.set_nonblocking(false).expect("blocking");
    let linger = SockRef::from(&near).set_linger(Some(LINGER));
    linger.expect("SO_LINGER");
    (near.into(), far)
}

/// Runs `f` as nobody, where root runs the tests.
fn as_nobody<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = std::thread::spawn(|| {
        if rustix::process::geteuid().is_root() {
            let nobody = rustix::process::Uid::from_raw(65_534);
            rustix::thread::set_thread_res_uid(nobody, nobody, nobody).expect("setresuid");
        }
        f()
    });
    thread.join().expect("no panic")
}

fn reachable(fixture: &Fixture) -> PathBuf {
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(fixture.directory.path(), mode).expect("mode");
    fixture.path()
}

/// Sends `bytes` with a descriptor that nobody else has then. Closing what comes back first lets
/// the linger end.
fn attack(path: &Path, bytes: &[u8]) -> (TcpStream, Raw) {
    let (near, far) = lingering();
    let stream = Raw::connect(path).expect("connect");
    unix_socket::send(&stream, bytes, &[near.as_fd()]).expect("send");
    (far, stream)
}

fn register() -> Vec<u8> {
    message(&json!({"method": "io.reuseportd.Register", "parameters": {"service": "game"}}))
}

fn info() -> Vec<u8> {
    message(&json!({"method": "org.varlink.service.GetInfo"}))
}

/// Another client is answered.
async fn serves(fixture: &Fixture) {
    let begun = Instant::now();
    let answers = raw(&fixture.path(), info(), 1).await;
    assert_eq!(answers[0]["parameters"]["product"], "reuseportd");
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
}

/// The end of the stream, which comes when the connection has been ended.
async fn ends(mut stream: Raw) -> Vec<Value> {
    let reading = tokio::task::spawn_blocking(move || read_messages(&mut stream, TO_THE_END));
    soon(reading).await.expect("no panic")
}

/// The connection's next call, which is not read before what the last one brought is closed.
async fn next_answer(stream: &Raw) -> Value {
    let mut stream = stream.try_clone().expect("duplicate");
    let reading = tokio::task::spawn_blocking(move || read_messages(&mut stream, 1).remove(0));
    soon(reading).await.expect("no panic")
}

#[tokio::test]
async fn a_call_that_takes_no_descriptors() {
    let fixture = Fixture::start(Limits::default());
    for bytes in [info(), b"nonsense\0".to_vec(), register_misspelt()] {
        let (far, mut stream) = attack(&fixture.path(), &bytes);
        assert!(next_answer(&stream).await.is_object());
        serves(&fixture).await;
        stream.write_all(&info()).expect("write");
        serves(&fixture).await;
        drop(far);
        let answer = next_answer(&stream).await;
        assert_eq!(answer["parameters"]["product"], "reuseportd");
    }
    let begun = Instant::now();
    fixture.stop().await;
    assert!(begun.elapsed() < AT_ONCE);
}

fn register_misspelt() -> Vec<u8> {
    message(&json!({"method": "io.reuseportd.Register", "parameters": {"sevrice": "game"}}))
}

#[tokio::test]
async fn a_call_that_goes_to_the_driver() {
    let mut fixture = Fixture::start(Limits::default());
    let status = message(&json!({"method": "io.reuseportd.Status"}));
    let registered = Registered {
        changed: true,
        label: "g1".to_owned(),
        generation: 1,
        state: "serving".to_owned(),
        listeners: 1,
    };
    let refused = Failure::Refused(Reason {
        reason: "no".to_owned(),
        message: "no".to_owned(),
        hint: None,
    });
    for (bytes, count, answer) in [
        (register(), 1, Ok(Reply::Registered(registered))),
        (register(), 1, Err(refused)),
        (status, 0, Ok(Reply::Status(Status::default()))),
    ] {
        let (far, stream) = attack(&fixture.path(), &bytes);
        let envelope = fixture.call().await;
        assert_eq!(envelope.fds.len(), count);
        drop(envelope.fds);
        envelope.replier.finish(answer);
        serves(&fixture).await;
        drop(far);
        assert!(next_answer(&stream).await.is_object());
    }
    // The server ends while one hangs, and one more has not been looked at by the driver.
    let _attacks = [1, 2].map(|_| attack(&fixture.path(), &register()));
    drop(fixture.call().await);
    serves(&fixture).await;
    let begun = Instant::now();
    let Fixture {
        stop,
        running,
        mailbox,
        directory: _directory,
    } = fixture;
    stop.send(()).expect("the server lives");
    drop(mailbox);
    soon(running).await.expect("no panic").expect("no error");
    assert!(begun.elapsed() < AT_ONCE);
}

#[tokio::test]
async fn descriptors_that_nobody_receives() {
    let fixture = Fixture::start(Limits::default());
    // Behind a call that ends the connection.
    let stream = Raw::connect(fixture.path()).expect("connect");
    let ((near, _far), (urgent, _urgent_far)) = (lingering(), lingering());
    (&stream).write_all(&vec![b'x'; 80 << 10]).expect("write");
    // The server may have hung up already.
    let _ = unix_socket::send(&stream, b"x", &[near.as_fd()]);
    drop(near);
    assert_eq!(ends(stream).await.len(), 1);
    serves(&fixture).await;

    // With an urgent byte, which reads pass over.
    let stream = Raw::connect(fixture.path()).expect("connect");
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [urgent.as_fd()];
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    let bytes = [io::IoSlice::new(b"\n")];
    // Linux before 5.15, or without CONFIG_AF_UNIX_OOB, has no urgent bytes here.
    if sendmsg(&stream, &bytes, &mut control, SendFlags::OOB).is_ok() {
        drop(urgent);
        (&stream).write_all(&info()).expect("write");
        serves(&fixture).await;
        assert!(next_answer(&stream).await.is_object());
        serves(&fixture).await;
    }
    fixture.stop().await;
}

#[tokio::test]
async fn a_client_that_is_not_accepted() {
    let fixture = Fixture::start(Limits {
        connections: 1,
        ..Limits::default()
    });
    let mut first = Raw::connect(fixture.path()).expect("connect");
    first.write_all(&info()).expect("write");
    assert!(next_answer(&first).await.is_object());
    let _attack = attack(&fixture.path(), &info());
    let begun = Instant::now();
    fixture.stop().await;
    assert!(begun.elapsed() < AT_ONCE);
}

/// Whoever lets closes hang runs out of places, and gets them back when they are over.
#[tokio::test]
async fn a_flood_is_bounded_by_its_users_places() {
    const PLACES: usize = 4;
    let fixture = Fixture::start(Limits {
        connections_per_user: PLACES,
        ..Limits::default()
    });
    let path = reachable(&fixture);
    let flood = move || -> Vec<_> {
        let attacks = (0..3 * PLACES).map(|_| attack(&path, &info()));
        attacks.collect()
    };
    // All have sent theirs before the server, which this thread runs, looks at one.
    let (mut far, streams): (Vec<_>, Vec<_>) = as_nobody(flood).into_iter().unzip();
    let mut refused = 0;
    for stream in streams {
        // Half-closed, the connection ends as soon as it may.
        stream
            .shutdown(std::net::Shutdown::Write)
            .expect("shutdown");
        let answer = next_answer(&stream).await;
        refused += usize::from(answer["parameters"]["reason"] == "too-many-connections");
    }
    assert_eq!(refused, 2 * PLACES);
    let begun = Instant::now();
    if rustix::process::geteuid().is_root() {
        serves(&fixture).await;
    }
    // Every place is taken, by connections that their client has left.
    let path = fixture.path();
    let asking = move || {
        let mut stream = Raw::connect(path).expect("connect");
        // A refused client may be hung up on before it asks, and has its answer all the same.
        let _ = stream.write_all(&info());
        read_messages(&mut stream, 1).remove(0)
    };
    let again = asking.clone();
    let asking = tokio::task::spawn_blocking(|| as_nobody(asking));
    let answer = soon(asking).await.expect("no panic");
    assert_eq!(answer["parameters"]["reason"], "too-many-connections");
    assert!(begun.elapsed() < AT_ONCE);

    far.clear();
    soon(async {
        loop {
            let again = again.clone();
            let asking = tokio::task::spawn_blocking(|| as_nobody(again));
            let answer = asking.await.expect("no panic");
            if answer["parameters"]["product"] == "reuseportd" {
                break;
            }
        }
    })
    .await;
    fixture.stop().await;
}
