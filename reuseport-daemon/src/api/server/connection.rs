//! One client's connection: reads calls one after the other, and writes what becomes of them.

use std::{borrow::Cow, future, sync::Arc, time::Duration};

use serde::Serialize;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};
use tracing::debug;
use zlink::{
    Call, Reply,
    connection::ReadConnection,
    varlink_service::{Error as VarlinkError, Info},
};

use super::dispatch::{Asked, DESCRIPTIONS, RawCall};
use crate::{
    api::{
        Answer, Caller, Envelope, Replier, Told,
        error_reply::{ErrorReply, reason},
        permission,
        socket::{ControlReader, ControlSocket, ControlWriter, MAX_DESCRIPTORS, SocketFault},
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

/// The connection cannot go on: the client has gone, or is not to be understood.
#[derive(Debug)]
struct Ended;

impl Connection {
    pub(super) fn new(socket: ControlSocket, caller: Caller, context: Arc<Context>) -> Self {
        let closer = Arc::clone(socket.closer());
        let (read, write) = zlink::Connection::new(socket).split();
        Self {
            read,
            writer: Writer {
                half: write.into_write_half(),
                patience: context.patience,
            },
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
                received = self.read.receive_call::<RawCall>() => received,
                _ = stopped.wait_for(|stopped| *stopped) => return,
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
        let mut responder = Responder {
            writer: &mut self.writer,
            wanted: Wanted::by(&call),
        };
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
            Asked::Driver(request) => responder.wanted.without_idle_waits(request),
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

fn stopping() -> Failure {
    Failure::Failed(reason(
        "stopping",
        "the daemon stops: the call was not finished",
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

/// The sending half, with the patience that a client which does not read is met with.
#[derive(Debug)]
struct Writer {
    half: ControlWriter,
    patience: Duration,
}

impl Writer {
    async fn send<T: Serialize>(&mut self, message: &T) -> Result<(), Ended> {
        self.send_with(message, None).await
    }

    async fn send_with<T: Serialize>(
        &mut self,
        message: &T,
        descriptor: Option<&Passed>,
    ) -> Result<(), Ended> {
        match timeout(self.patience, self.half.send(message, descriptor)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                debug!(%error, "a client does not take its answer");
                Err(Ended)
            }
            Err(_) => {
                debug!("a client does not read its answer");
                Err(Ended)
            }
        }
    }
}

/// How many replies a call wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    /// `oneway`
    None,
    /// The last one.
    Last,
    /// `more`
    All,
}

impl Wanted {
    fn by(call: &Call<RawCall>) -> Self {
        if call.oneway() {
            Self::None
        } else if call.more() {
            Self::All
        } else {
            Self::Last
        }
    }

    /// The request, without a wait that nobody would be told the end of.
    fn without_idle_waits(self, mut request: Request) -> Request {
        if let (Self::None, Request::Migrate(migrate)) = (self, &mut request) {
            migrate.wait_sessions_ms = None;
        }
        request
    }
}

/// Writes the replies to one call, those that it wants.
#[derive(Debug)]
struct Responder<'a> {
    writer: &'a mut Writer,
    wanted: Wanted,
}

impl Responder<'_> {
    /// The last reply.
    async fn send<T: Serialize>(&mut self, message: &T) -> Result<(), Ended> {
        match self.wanted {
            Wanted::None => Ok(()),
            Wanted::Last | Wanted::All => self.writer.send(message).await,
        }
    }

    /// Passes progress on until the answer is there, which is for the caller to send.
    async fn relay(
        &mut self,
        mut progress: mpsc::Receiver<Told>,
        mut last: oneshot::Receiver<Answer>,
    ) -> Result<Answer, Ended> {
        let hang_up = self.hang_up();
        tokio::pin!(hang_up);
        loop {
            tokio::select! {
                // What happened before the end is told before the end.
                biased;
                Some(told) = progress.recv() => if self.wanted == Wanted::All {
                    let reply = Reply::from(told.reply).set_continues(Some(true));
                    self.writer.send_with(&reply, told.descriptor.as_deref()).await?;
                },
                answer = &mut last => return Ok(answer.unwrap_or_else(|_| Err(stopping()))),
                () = &mut hang_up => {
                    debug!("a client has gone before the end of its call");
                    return Err(Ended);
                }
            }
        }
    }

    /// Resolves when a client that wants to be told everything has gone. Others' calls do not take
    /// long, and a client that wants no answer need not stay.
    fn hang_up(&self) -> impl Future<Output = ()> + use<> {
        let hang_up = (self.wanted == Wanted::All)
            .then(|| self.writer.half.hang_up())
            .and_then(Result::ok);
        async {
            match hang_up {
                Some(hang_up) => hang_up.await,
                // Without a descriptor for it, the next reply tells.
                None => future::pending().await,
            }
        }
    }
}
