//! Who has which connection. Nothing here waits or asks the kernel for anything.
//!
//! ```text
//!                 give                    acknowledge
//!   (accepted) ────────> given to one ───────────────────> the receiver's
//!        │                  │    ^
//!        │ no receiver      │    │ give, under another id
//!        │ has room         │    │
//!        │                  v    │
//!        └───────────────> waiting
//!                           the receiver goes away
//! ```

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    mem,
    sync::Arc,
};

use crate::{
    api::{
        Feed,
        wire::{Handed, Reply},
    },
    domain::ProcessId,
    sys::passed::{Closer, Passed},
};

/// How many connections a receiver may have that it has not acknowledged. There is room for each of
/// them on the way to it.
pub(super) const UNACKNOWLEDGED: usize = Feed::ROOM;

/// How many receivers a service may have. With what each of them may hold, it bounds the connections
/// that the daemon keeps for a service.
const RECEIVERS: usize = 64;

/// How many ids are remembered of connections that were taken from a receiver: those of all
/// receivers at once.
const WITHDRAWN: usize = RECEIVERS * UNACKNOWLEDGED;

/// A connection that the daemon has accepted.
#[derive(Debug)]
pub(super) struct Connection {
    /// The connection.
    pub(super) socket: Arc<Passed>,
    /// What closes it. Each has its own: what one's close waits for is not for the others to wait
    /// for, nor for whoever acknowledges them.
    pub(super) closer: Arc<Closer>,
    /// The address of its group.
    pub(super) listen: String,
    /// The client.
    pub(super) peer: String,
}

/// Tells receivers apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ReceiverId(u64);

/// What an acknowledgement comes to.
#[derive(Debug)]
pub(super) enum Acknowledged {
    /// It is the caller's from now on, once this has closed what the daemon has of it.
    Now(Arc<Closer>),
    /// It is the caller's already, or an earlier daemon gave it: nobody else can have it.
    Before,
    /// It is somebody else's.
    Others,
}

/// The receivers of a service, and the connections that are on their way to one.
#[derive(Debug)]
pub(super) struct Desk {
    receivers: BTreeMap<ReceiverId, Receiver>,
    given: BTreeMap<u64, (ReceiverId, Connection)>,
    waiting: VecDeque<Connection>,
    /// Ids of connections that were taken from a receiver, which may have them still.
    withdrawn: VecDeque<u64>,
    next_receiver: u64,
    next_id: u64,
    acknowledged: u64,
}

#[derive(Debug)]
struct Receiver {
    process: ProcessId,
    feed: Feed,
    unacknowledged: usize,
}

impl Desk {
    /// A desk that numbers connections from `first_id`. An earlier daemon's ids must be below that.
    pub(super) fn new(first_id: u64) -> Self {
        Self {
            receivers: BTreeMap::new(),
            given: BTreeMap::new(),
            waiting: VecDeque::new(),
            withdrawn: VecDeque::new(),
            next_receiver: 0,
            next_id: first_id,
            acknowledged: 0,
        }
    }

    /// Takes in a receiver; none where there are as many as there may be.
    pub(super) fn subscribe(&mut self, process: ProcessId, feed: Feed) -> Option<ReceiverId> {
        if self.receivers.len() >= RECEIVERS {
            return None;
        }
        let id = ReceiverId(self.next_receiver);
        self.next_receiver += 1;
        let receiver = Receiver {
            process,
            feed,
            unacknowledged: 0,
        };
        self.receivers.insert(id, receiver);
        Some(id)
    }

    /// Takes leave of a receiver that has gone, and what it has not acknowledged from it.
    pub(super) fn leave(&mut self, gone: ReceiverId) {
        self.receivers.remove(&gone);
        for (id, (receiver, connection)) in mem::take(&mut self.given) {
            if receiver != gone {
                self.given.insert(id, (receiver, connection));
                continue;
            }
            if self.withdrawn.len() == WITHDRAWN {
                self.withdrawn.pop_front();
            }
            self.withdrawn.push_back(id);
            self.waiting.push_back(connection);
        }
    }

    /// Takes leave of a receiver that stays, and leaves it what is on its way: the daemon ends.
    pub(super) fn dismiss(&mut self, receiver: ReceiverId) {
        self.receivers.remove(&receiver);
        self.given.retain(|_, (theirs, _)| *theirs != receiver);
    }

    /// Every receiver, and which process it is.
    pub(super) fn receivers(&self) -> impl Iterator<Item = (ReceiverId, ProcessId)> {
        self.receivers.iter().map(|(id, it)| (*id, it.process))
    }

    /// Whether one of `team` may have another connection.
    pub(super) fn has_room(&self, team: &BTreeSet<ReceiverId>) -> bool {
        self.those_with_room(team).next().is_some()
    }

    /// Gives a connection to the one of `team` that has the fewest. Where none takes it, it waits.
    pub(super) fn give(&mut self, connection: Connection, team: &BTreeSet<ReceiverId>) {
        let mut able: Vec<_> = self.those_with_room(team).collect();
        able.sort_unstable();
        let id = self.next_id;
        let handed = |connection: &Connection| {
            Reply::Handed(Handed {
                id,
                listen: connection.listen.clone(),
                peer: connection.peer.clone(),
            })
        };
        for (_, receiver) in able {
            let Some(it) = self.receivers.get_mut(&receiver) else {
                continue;
            };
            // One that has gone is taken leave of by whoever notices; it is no good until then.
            if it
                .feed
                .hand_over(handed(&connection), Arc::clone(&connection.socket))
            {
                it.unacknowledged += 1;
                self.next_id += 1;
                self.given.insert(id, (receiver, connection));
                return;
            }
        }
        self.waiting.push_back(connection);
    }

    /// Gives those that wait to `team`, as far as it has room. Those of which `gone` says that their
    /// client has gone are closed.
    pub(super) fn give_waiting(
        &mut self,
        team: &BTreeSet<ReceiverId>,
        gone: impl Fn(&Passed) -> bool,
    ) {
        self.waiting.retain(|it| !gone(&it.socket));
        for _ in 0..self.waiting.len() {
            if !self.has_room(team) {
                return;
            }
            if let Some(connection) = self.waiting.pop_front() {
                self.give(connection, team);
            }
        }
    }

    /// `process` says that it has received a connection.
    pub(super) fn acknowledge(&mut self, id: u64, process: ProcessId) -> Acknowledged {
        let Some((receiver, _)) = self.given.get(&id) else {
            return if self.withdrawn.contains(&id) || id >= self.next_id {
                Acknowledged::Others
            } else {
                Acknowledged::Before
            };
        };
        match self.receivers.get_mut(receiver) {
            Some(receiver) if receiver.process == process => receiver.unacknowledged -= 1,
            Some(_) | None => return Acknowledged::Others,
        }
        self.acknowledged += 1;
        match self.given.remove(&id) {
            Some((_, connection)) => Acknowledged::Now(connection.closer),
            None => Acknowledged::Before,
        }
    }

    /// How many connections have been acknowledged so far.
    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// How many are given to a receiver that has not acknowledged them.
    pub(super) fn given(&self) -> usize {
        self.given.len()
    }

    /// How many wait for a receiver.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Those of `team` that may have another connection, with what they have.
    fn those_with_room(
        &self,
        team: &BTreeSet<ReceiverId>,
    ) -> impl Iterator<Item = (usize, ReceiverId)> {
        let able = team.iter().filter_map(|id| {
            let it = self.receivers.get(id)?;
            Some((it.unacknowledged, *id))
        });
        able.filter(|(unacknowledged, _)| *unacknowledged < UNACKNOWLEDGED)
    }
}
