//! Taking what waits in the old accept queues.

use std::{
    collections::HashSet,
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use thiserror::Error;

use super::{Handoff, Team, desk::Connection};
use crate::{
    daemon::inspect::{self, InspectError},
    domain::{ProcessId, SocketCookie},
    sys::{
        accept::Acceptor,
        netns::Netns,
        passed::{Closer, Passed},
        socket::{self, SocketError, SocketFacts},
    },
};

/// How long the old listeners are held at a time, while their connections go as fast as receivers
/// acknowledge them: to look for a listener among all that a server has open takes longer than to
/// accept from it.
const AT_A_TIME: Duration = Duration::from_millis(100);

/// Why nothing could be taken.
#[derive(Debug, Error)]
pub(in crate::daemon) enum TakeError {
    /// The old listeners.
    #[error(transparent)]
    Inspect(#[from] InspectError),
    /// One of them.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// A connection, or the thread that accepts.
    #[error("cannot accept in the old server's place")]
    Accept(#[source] io::Error),
}

/// A duplicate of an old listener.
#[derive(Debug)]
struct Old {
    listener: Passed,
    address: String,
}

/// What an attempt to take a connection came to.
enum Taken {
    /// It is a receiver's.
    One,
    /// None waits.
    Empty,
    /// Nobody has room for one.
    NoRoom,
}

impl Handoff {
    /// Takes what waits for these processes at these listeners, as long as there is room at the
    /// receivers of those that serve. The old servers may accept beside it.
    pub(in crate::daemon) fn take_from(
        &self,
        old: &[(ProcessId, HashSet<SocketCookie>)],
        netns: &Netns,
    ) -> Result<(), TakeError> {
        let team = self.team();
        self.hand_out(&team);
        if !self.lock().has_room(&team) {
            return Ok(());
        }
        let mut listeners = Vec::new();
        for (process, cookies) in old {
            listeners.extend(duplicates(*process, cookies, netns)?);
        }
        Acceptor::run(|acceptor| self.take_all(acceptor, &team, &listeners))
            .and_then(|taken| taken)
            .map_err(TakeError::Accept)
    }

    fn take_all(&self, acceptor: &Acceptor, team: &Team, listeners: &[Old]) -> io::Result<()> {
        let end = Instant::now() + AT_A_TIME;
        for old in listeners {
            loop {
                match self.take_one(acceptor, team, old)? {
                    Taken::One => {}
                    Taken::Empty => break,
                    Taken::NoRoom if self.wait_for_room(team, end) => {}
                    Taken::NoRoom => return Ok(()),
                }
            }
        }
        Ok(())
    }

    /// Accepts and gives under one lock: whoever serves next, or ends the receivers' calls, finds
    /// the connection accepted and given, or in the queue. It is held for a millisecond or so where
    /// the old server is faster, see [`Acceptor`].
    fn take_one(&self, acceptor: &Acceptor, team: &Team, old: &Old) -> io::Result<Taken> {
        let mut state = self.lock();
        if !state.has_room(team) {
            return Ok(Taken::NoRoom);
        }
        let Some(socket) = acceptor.accept(old.listener.as_fd())? else {
            return Ok(Taken::Empty);
        };
        if let Some(connection) = connection(socket, old) {
            state.desk.give(connection, &team.members);
        }
        Ok(Taken::One)
    }

    /// Waits until a receiver has room. False where none has by `end`, or others serve by now.
    fn wait_for_room(&self, team: &Team, end: Instant) -> bool {
        let full = |state: &mut super::State| state.round == team.round && !state.has_room(team);
        let left = end.saturating_duration_since(Instant::now());
        let waited = self
            .changed
            .wait_timeout_while(self.lock(), left, full)
            .unwrap_or_else(PoisonError::into_inner);
        let (state, _) = waited;
        state.has_room(team)
    }
}

/// Those of a process's listeners that it still has. One that has ended has none.
fn duplicates(
    process: ProcessId,
    cookies: &HashSet<SocketCookie>,
    netns: &Netns,
) -> Result<Vec<Old>, TakeError> {
    let mut found = Vec::new();
    for listener in inspect::duplicates(process, netns, cookies)?.into_values() {
        // One that has been shut down meanwhile has no address to tell, nor connections.
        if let SocketFacts::Tcp(facts) = socket::facts(listener.as_fd())?
            && let Some(address) = facts.address
        {
            let address = address.to_string();
            found.push(Old { listener, address });
        }
    }
    Ok(found)
}

/// None where the client has gone.
fn connection(socket: OwnedFd, old: &Old) -> Option<Connection> {
    let closer = Arc::<Closer>::default();
    let socket = Passed::new(socket, &closer);
    let peer = socket::peer(socket.as_fd()).ok()?;
    Some(Connection {
        socket: Arc::new(socket),
        closer,
        listen: old.address.clone(),
        peer: peer.to_string(),
    })
}
