//! What a client is told, as far as it wants to be told.

use std::{future, time::Duration};

use serde::Serialize;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use tracing::debug;
use zlink::{Call, Reply};

use super::dispatch::RawCall;
use crate::{
    api::{Answer, Told, error_reply::stopping, socket::ControlWriter, wire::Request},
    sys::passed::Passed,
};

/// The connection cannot go on: the client has gone, or is not to be understood.
#[derive(Debug)]
pub(super) struct Ended;

/// The sending half, with the patience that a client which does not read is met with.
#[derive(Debug)]
pub(super) struct Writer {
    half: ControlWriter,
    patience: Duration,
}

impl Writer {
    pub(super) fn new(half: ControlWriter, patience: Duration) -> Self {
        Self { half, patience }
    }

    pub(super) async fn send<T: Serialize>(&mut self, message: &T) -> Result<(), Ended> {
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
pub(super) enum Wanted {
    /// `oneway`
    None,
    /// The last one.
    Last,
    /// `more`
    All,
}

impl Wanted {
    pub(super) fn by(call: &Call<RawCall>) -> Self {
        if call.oneway() {
            Self::None
        } else if call.more() {
            Self::All
        } else {
            Self::Last
        }
    }

    /// The request, without a wait that nobody would be told the end of.
    pub(super) fn without_idle_waits(self, mut request: Request) -> Request {
        if let (Self::None, Request::Migrate(migrate)) = (self, &mut request) {
            migrate.wait_sessions_ms = None;
        }
        request
    }
}

/// Writes the replies to one call, those that it wants.
#[derive(Debug)]
pub(super) struct Responder<'a> {
    writer: &'a mut Writer,
    wanted: Wanted,
}

impl<'a> Responder<'a> {
    pub(super) fn to(call: &Call<RawCall>, writer: &'a mut Writer) -> Self {
        let wanted = Wanted::by(call);
        Self { writer, wanted }
    }

    pub(super) fn wanted(&self) -> Wanted {
        self.wanted
    }

    /// The last reply.
    pub(super) async fn send<T: Serialize>(&mut self, message: &T) -> Result<(), Ended> {
        match self.wanted {
            Wanted::None => Ok(()),
            Wanted::Last | Wanted::All => self.writer.send(message).await,
        }
    }

    /// Passes progress on until the answer is there, which is for the caller to send.
    pub(super) async fn relay(
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
