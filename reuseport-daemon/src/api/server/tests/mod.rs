//! The protocol over a real socket, with a driver that answers as it is told.

mod calls;
mod limits;
mod linger;
mod receive;

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
        self, Changed, Failure, MigrationReply, MigrationResult, Progress, Reason, Register,
        Registered, Reply, Request, ServiceFilter, ServiceRef, Status,
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
        let server = Server::bind(&path).expect("bind");
        let server = server.with_limits(limits).with_admin_group(admin_group);
        let (sender, mailbox) = mpsc::channel(16);
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(server.run(sender, async {
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
            sessions: None,
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
            ..MigrationResult::default()
        }),
    }
}
