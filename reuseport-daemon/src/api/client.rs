//! A client of the control socket.

use std::{
    borrow::BorrowMut,
    fmt::Debug,
    io,
    marker::PhantomData,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;
use tokio::net::UnixStream;
use zlink::{Call, Connection};

use super::{
    error_reply::ErrorReply,
    line::Line,
    socket::{ControlSocket, MessageLimits},
    wire::Failure,
};
use crate::sys::passed::Passed;

/// What the daemon may answer: a status of thousands of services is some megabytes. There is no
/// time limit: a migration takes as long as it takes.
const REPLY_LIMITS: MessageLimits = MessageLimits {
    bytes: 64 << 20,
    stall: None,
};

/// A call that did not succeed.
#[derive(Debug, Error)]
pub enum ClientError {
    /// No socket at that path.
    #[error("there is no socket at {}", path.display())]
    Absent {
        /// Where it was looked for.
        path: PathBuf,
        /// `ENOENT`
        source: io::Error,
    },
    /// A socket that no process listens on.
    #[error("nobody listens on {}", path.display())]
    NobodyThere {
        /// The socket.
        path: PathBuf,
        /// `ECONNREFUSED`
        source: io::Error,
    },
    /// The socket's mode, or that of a directory above, keeps this user out.
    #[error("{} may not be opened", path.display())]
    Forbidden {
        /// The socket.
        path: PathBuf,
        /// `EACCES`
        source: io::Error,
    },
    /// Another reason not to reach it.
    #[error("connecting to {} failed", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What `connect` said.
        source: io::Error,
    },
    /// The daemon closed the connection before it answered.
    #[error("the connection ended before the answer")]
    Gone,
    /// The daemon said no.
    #[error("the daemon answered with an error: {}", .0.reason().message)]
    Failure(Failure),
    /// An error of `org.varlink.service`: the two are not of the same version.
    #[error("the daemon does not understand the call")]
    Protocol(#[source] zlink::varlink_service::OwnedError),
    /// The answer makes no sense, or the connection failed.
    #[error("the answer cannot be read")]
    Transport(#[source] zlink::Error),
    /// The stream ended without the reply that says how it ended.
    #[error("the answer says nothing")]
    NoResult,
}

impl From<zlink::Error> for ClientError {
    fn from(error: zlink::Error) -> Self {
        if is_end(&error) {
            Self::Gone
        } else if let zlink::Error::VarlinkService(error) = error {
            Self::Protocol(error)
        } else {
            Self::Transport(error)
        }
    }
}

fn is_end(error: &zlink::Error) -> bool {
    matches!(error, zlink::Error::UnexpectedEof)
        || matches!(error, zlink::Error::Io(error) if is_hangup(error))
}

fn is_hangup(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}

/// A connection to the daemon. Calls follow one another.
#[derive(Debug)]
pub struct Client {
    connection: Connection<ControlSocket>,
}

#[derive(Debug, Serialize)]
struct Method<'a, P> {
    method: String,
    parameters: &'a P,
}

impl Client {
    /// Connects to the daemon at `path`.
    ///
    /// # Errors
    ///
    /// [`ClientError::Absent`], [`ClientError::NobodyThere`], [`ClientError::Forbidden`] or
    /// [`ClientError::Connect`].
    pub async fn connect(path: &Path) -> Result<Self, ClientError> {
        let stream = UnixStream::connect(path).await.map_err(|source| {
            let path = path.to_owned();
            match source.raw_os_error() {
                Some(libc::ENOENT) => ClientError::Absent { path, source },
                Some(libc::ECONNREFUSED) => ClientError::NobodyThere { path, source },
                Some(libc::EACCES | libc::EPERM) => ClientError::Forbidden { path, source },
                _ => ClientError::Connect { path, source },
            }
        })?;
        let line = Line::new(stream, Arc::default());
        Ok(Self {
            connection: Connection::new(ControlSocket::new(line, REPLY_LIMITS)),
        })
    }

    /// Calls a method of `io.reuseportd`, named without the interface, and waits for its reply.
    /// The descriptors go with the call.
    ///
    /// # Errors
    ///
    /// [`ClientError::Failure`] where the daemon said no, or one of the others where it could not
    /// be asked.
    pub async fn call<P, R>(
        &mut self,
        method: &str,
        parameters: &P,
        fds: Vec<OwnedFd>,
    ) -> Result<R, ClientError>
    where
        P: Serialize + Debug,
        R: DeserializeOwned + Debug,
    {
        self.send(&Call::new(Method::new(method, parameters)), fds)
            .await?;
        let (reply, _, _) = self.receive().await?;
        Ok(reply)
    }

    /// Calls a method that replies more than once.
    ///
    /// # Errors
    ///
    /// As [`Client::call`].
    pub async fn stream<P, R>(
        &mut self,
        method: &str,
        parameters: &P,
    ) -> Result<Replies<&mut Self, R>, ClientError>
    where
        P: Serialize + Debug,
    {
        self.ask_for_all(method, parameters).await?;
        Ok(Replies::to(self))
    }

    /// The same, with the connection for as long as there are replies.
    ///
    /// # Errors
    ///
    /// As [`Client::call`].
    pub async fn into_stream<P, R>(
        mut self,
        method: &str,
        parameters: &P,
    ) -> Result<Replies<Self, R>, ClientError>
    where
        P: Serialize + Debug,
    {
        self.ask_for_all(method, parameters).await?;
        Ok(Replies::to(self))
    }

    async fn ask_for_all<P>(&mut self, method: &str, parameters: &P) -> Result<(), ClientError>
    where
        P: Serialize + Debug,
    {
        let call = Call::new(Method::new(method, parameters)).set_more(true);
        self.send(&call, Vec::new()).await
    }

    async fn send<P>(
        &mut self,
        call: &Call<Method<'_, P>>,
        fds: Vec<OwnedFd>,
    ) -> Result<(), ClientError>
    where
        P: Serialize + Debug,
    {
        match self.connection.send_call(call, fds).await {
            // A daemon that does not take the call answers before it closes, and the answer is
            // there to be read.
            Err(zlink::Error::Io(error)) if is_hangup(&error) => Ok(()),
            sent => Ok(sent?),
        }
    }

    /// A reply, the descriptors that came with it, and whether more will follow.
    async fn receive<R>(&mut self) -> Result<(R, Vec<Passed>, bool), ClientError>
    where
        R: DeserializeOwned + Debug,
    {
        let received = self.connection.receive_reply::<R, ErrorReply>().await;
        let descriptors = self.connection.read().read_half().descriptors();
        let (reply, _) = received?;
        let reply = reply.map_err(|error| ClientError::Failure(error.into()))?;
        let continues = reply.continues().unwrap_or(false);
        let parameters = reply.into_parameters().ok_or(ClientError::NoResult)?;
        Ok((parameters, descriptors, continues))
    }
}

impl<'a, P> Method<'a, P> {
    fn new(member: &str, parameters: &'a P) -> Self {
        Self {
            method: format!("io.reuseportd.{member}"),
            parameters,
        }
    }
}

/// The replies to one call.
#[derive(Debug)]
pub struct Replies<C, R> {
    client: C,
    ended: bool,
    reply: PhantomData<R>,
}

impl<C, R> Replies<C, R> {
    fn to(client: C) -> Self {
        Self {
            client,
            ended: false,
            reply: PhantomData,
        }
    }
}

impl<C: BorrowMut<Client>, R: DeserializeOwned + Debug> Replies<C, R> {
    /// The next reply; none after the last one.
    ///
    /// # Errors
    ///
    /// As [`Client::call`]. An error is the last reply.
    pub async fn next(&mut self) -> Result<Option<R>, ClientError> {
        let next = self.next_with_descriptors().await?;
        Ok(next.map(|(reply, _)| reply))
    }

    /// The next reply and the descriptors that came with it, close-on-exec; none after the last one.
    ///
    /// # Errors
    ///
    /// As [`Client::call`]. An error is the last reply.
    pub async fn next_with_descriptors(
        &mut self,
    ) -> Result<Option<(R, Vec<OwnedFd>)>, ClientError> {
        if self.ended {
            return Ok(None);
        }
        // Whatever goes wrong while it is received, nothing comes after it.
        self.ended = true;
        let (reply, descriptors, continues) = self.client.borrow_mut().receive().await?;
        self.ended = !continues;
        let descriptors = descriptors.into_iter().map(Passed::into_owned);
        Ok(Some((reply, descriptors.collect())))
    }
}
