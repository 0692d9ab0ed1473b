//! The server side of the control socket: takes calls from any local user, finds out what they may
//! ask for, and hands them to the driver one envelope at a time.
//!
//! Architecture Invariant: a client cannot stop the server. What one sends or leaves out costs its
//! own connection at most; what it can hold is bounded per message, per connection and per user.

mod admission;
mod bind;
mod connection;
mod dispatch;
mod door;
mod parameters;
mod responder;
#[cfg(test)]
mod tests;

use std::{
    io,
    os::{fd::AsFd, unix::net},
    path::Path,
    sync::Arc,
    time::Duration,
};

use thiserror::Error;
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{mpsc, watch},
    task::JoinSet,
    time::{sleep, timeout},
};
use tracing::{debug, warn};

pub use self::bind::BindError;
use self::{
    admission::Admission,
    bind::Bound,
    connection::{Connection, Context},
    door::{Door, Visit, is_shortage},
};
use super::{
    Caller, Envelope,
    error_reply::{ErrorReply, SHORT, TOO_MANY_CONNECTIONS, reason},
    line::{self, Line},
    permission::ADMIN_GROUP,
    socket::{ControlSocket, MessageLimits},
    wire::Reason,
};
use crate::{
    domain::ProcessId,
    sys::{
        passed::{Closer, Passed},
        process::{Process, ProcessError},
        unix_socket,
    },
};

/// What clients can make the server hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections in all, and one at least. Where all places are taken, clients that have asked nothing
    /// for as long as `patience` give theirs up.
    pub connections: usize,
    /// Connections of one user. Root is exempt, and a quarter of all places is for root alone, so
    /// that no number of users can lock it out.
    pub connections_per_user: usize,
    /// The longest call, in bytes without its NUL.
    pub call_bytes: usize,
    /// How long a call that has begun may take to arrive, and a reply to be taken.
    pub patience: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            connections_per_user: 256,
            call_bytes: 64 << 10,
            patience: Duration::from_secs(10),
        }
    }
}

/// The server could not start or go on.
#[derive(Debug, Error)]
pub enum ServerError {
    /// The listener cannot be used in this runtime.
    #[error("the control socket cannot be watched")]
    Watch(#[source] io::Error),
    /// The listener is broken.
    #[error("no more connections can be accepted on the control socket")]
    Accept(#[source] io::Error),
}

/// A control socket that listens. Clients can connect from now on, and wait for [`Server::run`].
#[derive(Debug)]
pub struct Server {
    bound: Bound,
    limits: Limits,
    admin_group: Option<u32>,
}

impl Server {
    /// Binds the control socket at `path`. The directory is made if it is missing, and a socket
    /// that a dead daemon left is replaced.
    ///
    /// Anybody may connect (mode 0666): every call is judged by its caller's credentials, and any
    /// user may ask about the services that are theirs.
    ///
    /// # Errors
    ///
    /// [`BindError::InUse`] where another daemon lives there, [`BindError::NotASocket`] where
    /// something else does, and [`BindError::Io`] for the rest.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        bind::bind(path).map(Self::new)
    }

    /// Other limits than the usual ones.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Another group than [`ADMIN_GROUP`] whose members may do everything, or none.
    #[must_use]
    pub fn with_admin_group(mut self, group: Option<u32>) -> Self {
        self.admin_group = group;
        self
    }

    fn new(bound: Bound) -> Self {
        Self {
            bound,
            limits: Limits::default(),
            admin_group: admin_group(),
        }
    }

    /// Serves until `shutdown` is over. Calls that are with the driver then still get their answer,
    /// if it comes soon; a [`super::Replier`] that is dropped counts as one.
    ///
    /// # Errors
    ///
    /// [`ServerError`] where the listener itself is broken. Running out of descriptors or memory is
    /// not an error: the server waits and goes on.
    pub async fn run(
        self,
        mailbox: mpsc::Sender<Envelope>,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), ServerError> {
        // The path is kept until the last call has ended: the next daemon waits for that.
        let (listener, _place) = self.bound.into_parts().map_err(ServerError::Watch)?;
        let listener = UnixListener::from_std(listener).map_err(ServerError::Watch)?;
        let mut door = Door::new(listener);
        let (stop, stopped) = watch::channel(false);
        let (crowd, crowded) = watch::channel(false);
        let mut acceptor = Acceptor {
            admission: Admission::new(self.limits),
            context: Arc::new(Context {
                mailbox,
                admin_group: self.admin_group,
                patience: self.limits.patience,
                stopped,
                crowded,
            }),
            crowd,
            limits: self.limits,
            strangers: Arc::default(),
            tasks: JoinSet::new(),
        };
        let strangers = Arc::clone(&acceptor.strangers);
        let result = tokio::select! {
            () = shutdown => Ok(()),
            never = strangers.attended() => match never {},
            error = acceptor.accept_forever(&mut door) => Err(ServerError::Accept(error)),
        };
        let _ = stop.send(true);
        // Those who were not accepted may have sent descriptors already.
        if let Ok(listener) = door.close() {
            drop(Passed::new(listener.into(), &acceptor.strangers));
        }
        acceptor.finish().await;
        result
    }
}

struct Acceptor {
    admission: Admission,
    context: Arc<Context>,
    /// True when every place is taken.
    crowd: watch::Sender<bool>,
    limits: Limits,
    /// Closes what those sent who have no place of their own.
    strangers: Arc<Closer>,
    tasks: JoinSet<()>,
}

impl Acceptor {
    /// Accepts until the listener itself is broken, and says how.
    async fn accept_forever(&mut self, door: &mut Door) -> io::Error {
        /// Long enough not to spin, short enough that nobody gives up.
        const BACK_OFF: Duration = Duration::from_millis(100);
        loop {
            while self.tasks.try_join_next().is_some() {}
            // The others wait in the listener's queue. Nobody is waited for where nobody is there.
            if self.tasks.len() >= self.limits.connections {
                self.crowd.send_replace(true);
                let left = self.tasks.join_next().await;
                self.crowd.send_replace(false);
                if left.is_some() {
                    continue;
                }
            }
            match door.next().await {
                Ok(Visit::In(stream)) => self.admit(stream),
                Ok(Visit::Short { client, error }) => {
                    if let Some(client) = client {
                        refuse(&client, &short_of(&error));
                        line::close(client, &self.strangers);
                        // Its descriptor is to be the spare one again, before the next one comes. One
                        // that brought what takes long to close is not waited for.
                        let _ = timeout(BACK_OFF, self.strangers.settled(0)).await;
                        continue;
                    }
                    tokio::select! {
                        Some(_) = self.tasks.join_next() => {}
                        () = sleep(BACK_OFF) => {}
                    }
                }
                Err(error) => return error,
            }
        }
    }

    fn admit(&mut self, stream: UnixStream) {
        let caller = match caller_of(&stream) {
            Ok(caller) => caller,
            Err(error) => {
                debug!(%error, "a client's credentials cannot be read");
                refuse(&stream, &short_of(&error));
                drop(Line::new(stream, Arc::clone(&self.strangers)));
                return;
            }
        };
        match self.admission.admit(caller.uid) {
            Ok(ticket) => {
                let limits = MessageLimits {
                    bytes: self.limits.call_bytes,
                    stall: Some(self.limits.patience),
                };
                let socket = ControlSocket::new(Line::new(stream, Arc::default()), limits);
                let connection = Connection::new(socket, caller, Arc::clone(&self.context));
                self.tasks.spawn(async move {
                    connection.serve().await;
                    drop(ticket);
                });
            }
            Err(refused) => {
                let why = reason(TOO_MANY_CONNECTIONS, refused.to_string());
                refuse(&stream, &ErrorReply::Refused(why));
                drop(Line::new(stream, Arc::clone(&self.strangers)));
            }
        }
    }

    async fn finish(&mut self) {
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if timeout(self.limits.patience, all).await.is_err() {
            self.tasks.shutdown().await;
        }
    }
}

fn caller_of(stream: &UnixStream) -> io::Result<Caller> {
    let peer = unix_socket::peer_credentials(stream)?;
    Ok(Caller {
        uid: peer.uid,
        gid: peer.gid,
        groups: unix_socket::peer_groups(stream)?,
        process: peer_process(stream, peer.pid)?,
    })
}

/// The process that connected, unless it has ended. Before Linux 6.5 it goes by its pid, which could be
/// another one's only if it had been given anew between the connection and its acceptance.
fn peer_process(stream: &UnixStream, pid: u32) -> io::Result<Option<ProcessId>> {
    let process = match unix_socket::peer_pidfd(stream) {
        Ok(pidfd) => Process::behind(pidfd, pid),
        Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => Process::open(pid),
        Err(error) if is_shortage(&error) => return Err(error),
        Err(_) => return Ok(None),
    };
    match process {
        Ok(process) => Ok(Some(process.id())),
        Err(ProcessError::Call { source, .. }) if is_shortage(&source) => Err(source),
        Err(_) => Ok(None),
    }
}

/// Tells a client why it is not served, before it has asked anything: it will read this as the answer
/// to its first call. A new connection always has room for it.
fn refuse(stream: impl AsFd, error: &ErrorReply) {
    if let Ok(mut bytes) = serde_json::to_vec(error) {
        bytes.push(0);
        let _ = unix_socket::send(stream, &bytes, &[]);
    }
}

fn short_of(error: &io::Error) -> ErrorReply {
    let hint = (error.raw_os_error() == Some(libc::EMFILE))
        .then(|| "raise the daemon's limit of open files (LimitNOFILE)".to_owned());
    ErrorReply::Failed(Reason {
        hint,
        ..reason(
            SHORT,
            format!("the daemon cannot take a connection: {error}"),
        )
    })
}

fn admin_group() -> Option<u32> {
    match nix::unistd::Group::from_name(ADMIN_GROUP) {
        Ok(group) => group.map(|group| group.gid.as_raw()),
        Err(error) => {
            warn!(%error, "the group {ADMIN_GROUP} cannot be looked up; only root may do everything");
            None
        }
    }
}

// What the driver's side of a listener hands over stays a `std` listener until a runtime is there.
type StdListener = net::UnixListener;
