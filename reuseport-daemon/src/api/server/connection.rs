//! One client's connection: reads calls one after the other, and writes what becomes of them.

use std::{borrow::Cow, future, sync::Arc, time::Duration};

use serde::Serialize;
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};
use tracing::debug;
use zlink::{
    Call, Reply,
    connection::ReadConnection,
    varlink_service::{Error as VarlinkError, Info},
};

use super::{
    dispatch::{Asked, DESCRIPTIONS, RawCall},
    responder::{Ended, Responder, Wanted, Writer},
};
use crate::{
    api::{
        Caller, Envelope, Replier,
        error_reply::{ErrorReply, reason, stopping},
        permission,
        socket::{ControlReader, ControlSocket, MAX_DESCRIPTORS, SocketFault},
        wire::{self, Failure, Request},
    },
    domain::Refusal,
    sys::passed::{Closer, Passed},
};

/// What every connection shares.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) mailbox: mpsc::Sender<Envelope>,
    pub(super) admin_group: Option<u32>,
    pub(super) patience: Duration,
    /// True when the server is about to end.
    pub(super) stopped: watch::Receiver<bool>,
    /// True when others wait for a place.
    pub(super) crowded: watch::Receiver<bool>,
}

/// A client's connection.
#[derive(Debug)]
pub(super) struct Connection {
    read: ReadConnection<ControlReader>,
    writer: Writer,
    closer: Arc<Closer>,
    caller: Caller,
    context: Arc<Context>,
}

impl Connection {
    pub(super) fn new(socket: ControlSocket, caller: Caller, context: Arc<Context>) -> Self {
        let closer = Arc::clone(socket.closer());
        let (read, write) = zlink::Connection::new(socket).split();
        Self {
            read,
            writer: Writer::new(write.into_write_half(), context.patience),
            closer,
            caller,
            context,
        }
    }

    /// Answers calls until the client goes away or the server ends. A client that has gone keeps
    /// its place until the descriptors that it left have been closed.
    pub(super) async fn serve(mut self) {
        self.answer_all().await;
        let (closer, context) = (Arc::clone(&self.closer), Arc::clone(&self.context));
        drop(self);
        context.settled(&closer, 0).await;
    }

    async fn answer_all(&mut self) {
        let mut stopped = self.context.stopped.clone();
        loop {
            // A client cannot have more closed before what it passed last is closed.
            let ahead = self.read.read_half().descriptors_ahead();
            self.context.settled(&self.closer, ahead).await;
            let received = tokio::select! {
                received = self.read.receive_call::<RawCall>() => Some(received),
                () = self.context.place_wanted() => None,
                _ = stopped.wait_for(|stopped| *stopped) => return,
            };
            let Some(received) = received else {
                // It goes whether or not it reads this.
                let _ = self.writer.send(&idle()).await;
                return;
            };
            let passed = self.read.read_half().descriptors();
            let done = match received {
                Ok((call, _)) => self.answer(call, passed).await,
                Err(error) => self.explain(error).await,
            };
            if done.is_err() {
                return;
            }
        }
    }

    async fn answer(&mut self, call: Call<RawCall>, passed: Vec<Passed>) -> Result<(), Ended> {
        let ahead = self.read.read_half().descriptors_ahead();
        let mut responder = Responder::to(&call, &mut self.writer);
        let asked = match understand(&call) {
            Ok(asked) => asked,
            Err(error) => return responder.send(&error).await,
        };
        let request = match asked {
            Asked::Info => return responder.send(&Reply::from(info())).await,
            Asked::Description(description) => {
                let reply = Reply::from(Description { description });
                return responder.send(&reply).await;
            }
            Asked::Driver(request) => responder.wanted().without_idle_waits(request),
        };
        let (replier, progress, last) = Replier::new();
        let (context, closer) = (&self.context, &self.closer);
        let delivered = context.deliver(&self.caller, request, passed, closer, replier);
        let answer = match delivered.await {
            Ok(()) => responder.relay(progress, last).await?,
            Err(failure) => Err(failure),
        };
        // Whoever has its answer may rely on it that the daemon has no duplicate any more.
        context.settled(closer, ahead).await;
        match answer {
            Ok(reply) => responder.send(&Reply::from(reply)).await,
            Err(failure) => responder.send(&ErrorReply::from(failure)).await,
        }
    }

    /// Tells the client why its message cannot be taken.
    async fn explain(&mut self, error: zlink::Error) -> Result<(), Ended> {
        if let Some(fault) = SocketFault::behind(&error) {
            debug!(%fault, uid = self.caller.uid, "a client's connection is closed");
            self.writer.send(&explanation(fault)).await?;
            return Err(Ended);
        }
        if let zlink::Error::Json(why) = error {
            let malformed = reason("malformed-request", format!("not a Varlink call: {why}"));
            let malformed = ErrorReply::MalformedRequest(malformed);
            return self.writer.send(&malformed).await;
        }
        debug!(%error, uid = self.caller.uid, "a client has gone");
        Err(Ended)
    }
}

impl Context {
    /// Puts a call into the driver's mailbox, if its caller may make it.
    async fn deliver(
        &self,
        caller: &Caller,
        request: Request,
        passed: Vec<Passed>,
        closer: &Arc<Closer>,
        replier: Replier,
    ) -> Result<(), Failure> {
        let scope = permission::scope(caller, &request, self.admin_group)
            .ok_or_else(|| not_permitted(caller.uid))?;
        // Only a registration has a use for descriptors; others' are closed here.
        let fds = match request {
            Request::Register(_) => passed,
            Request::AddService(_)
            | Request::RemoveService(_)
            | Request::Migrate(_)
            | Request::Rollback(_)
            | Request::Release(_)
            | Request::Receive(_)
            | Request::Acknowledge(_)
            | Request::Status(_)
            | Request::MigrateReq(_)
            | Request::Doctor(_) => Vec::new(),
        };
        let envelope = Envelope {
            caller: caller.clone(),
            scope,
            request,
            fds,
            closer: Arc::clone(closer),
            replier,
        };
        self.mailbox.send(envelope).await.map_err(|_| stopping())
    }

    /// Resolves when others have waited for a place for as long as anybody is waited for.
    async fn place_wanted(&self) {
        let mut crowded = self.crowded.clone();
        loop {
            let ends = crowded.wait_for(|crowded| *crowded).await.is_err();
            if ends {
                // The server does, which is told otherwise.
                return future::pending().await;
            }
            tokio::select! {
                () = sleep(self.patience) => return,
                _ = crowded.wait_for(|crowded| !crowded) => {}
            }
        }
    }

    /// Waits until `closer` has closed everything but for the descriptors of calls to come, or the
    /// server is about to end.
    async fn settled(&self, closer: &Arc<Closer>, ahead: usize) {
        let mut stopped = self.stopped.clone();
        tokio::select! {
            () = closer.settled(ahead) => {}
            _ = stopped.wait_for(|stopped| *stopped) => {}
        }
    }
}

/// What the call asks, if it asks it in the right way.
fn understand(call: &Call<RawCall>) -> Result<Asked, VarlinkError<'static>> {
    let asked = call.method().ask()?;
    if call.upgrade() {
        // No method gives the connection away to another protocol.
        let method = Cow::Owned(call.method().method().to_owned());
        return Err(VarlinkError::MethodNotImplemented { method });
    }
    match asked {
        Asked::Driver(Request::Migrate(_)) if !call.more() && !call.oneway() => {
            Err(VarlinkError::ExpectedMore)
        }
        // What nobody is told of would be lost.
        Asked::Driver(Request::Receive(_)) if Wanted::by(call) != Wanted::All => {
            Err(VarlinkError::ExpectedMore)
        }
        Asked::Driver(_) | Asked::Info | Asked::Description(_) => Ok(asked),
    }
}

fn explanation(fault: &SocketFault) -> ErrorReply {
    match fault {
        SocketFault::TooLong { .. } => {
            ErrorReply::RequestTooLarge(reason("request-too-large", fault.to_string()))
        }
        SocketFault::TooManyDescriptors { got } => {
            let refusal = Refusal::TooManyDescriptors {
                got: *got,
                max: MAX_DESCRIPTORS,
            };
            ErrorReply::Refused(wire::Reason {
                hint: Some("register an instance with more listeners by its pid".to_owned()),
                ..reason(refusal.code(), refusal.to_string())
            })
        }
        SocketFault::DescriptorsLost => ErrorReply::Failed(wire::Reason {
            hint: Some("raise the daemon's limit of open files (LimitNOFILE)".to_owned()),
            ..reason(
                "descriptors-lost",
                "the descriptors of the call did not all arrive: the daemon may not open more",
            )
        }),
        SocketFault::Stalled => {
            ErrorReply::MalformedRequest(reason("stalled", "a call has begun and does not end"))
        }
    }
}

fn not_permitted(uid: u32) -> Failure {
    Failure::NotPermitted(wire::Reason {
        hint: Some(format!(
            "this takes root or a member of the group {}",
            permission::ADMIN_GROUP
        )),
        ..reason("not-permitted", format!("uid {uid} may not do this"))
    })
}

fn idle() -> ErrorReply {
    ErrorReply::Refused(reason(
        "idle",
        "this connection has asked nothing for a while, and others wait for its place",
    ))
}

fn info() -> Info<'static> {
    let interfaces = DESCRIPTIONS
        .iter()
        .map(|(name, _)| zlink::names::InterfaceName::from_static_str_unchecked(name));
    Info {
        vendor: "reuseportd".into(),
        product: "reuseportd".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        url: env!("CARGO_PKG_REPOSITORY").into(),
        interfaces: interfaces.collect(),
    }
}

#[derive(Debug, Serialize)]
struct Description {
    description: &'static str,
}
