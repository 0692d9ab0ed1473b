//! Connections that the daemon accepts in a server's place and hands to the next one: the drain
//! strategy `handoff`.
//!
//! Processes of the instance that serves call `Receive`, and get what waits in the accept queues of
//! those that the service moves away from. The daemon keeps each connection until its receiver has
//! acknowledged it, so that a receiver can go away at any time: what it has not acknowledged goes to
//! another one.
//!
//! Architecture Invariant: a connection is accepted only for a receiver that has room for it, under
//! the lock that the receivers are kept under. There is no moment at which one is nobody's.

mod desk;
#[cfg(test)]
mod desk_tests;
mod roster;
mod take;

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::AsFd,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak},
};

use tokio::{
    sync::{oneshot, watch},
    task,
};
use tracing::{debug, warn};

pub(super) use self::take::TakeError;
use self::{
    desk::{Acknowledged, Desk, ReceiverId},
    roster::Roster,
};
use crate::{
    api::{Replier, wire},
    domain::{ProcessId, Refusal, Service, ServiceName},
    sys::{clock, passed::Passed, socket},
};

/// The receivers of a service, and what is on its way to them.
#[derive(Debug)]
pub(super) struct Handoff {
    service: ServiceName,
    state: Mutex<State>,
    /// Something has changed that may make room.
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    desk: Desk,
    roster: Roster,
    /// How often the roster has changed.
    round: u64,
    /// Held for each receiver; dropped, they end its call.
    calls: BTreeMap<ReceiverId, oneshot::Sender<()>>,
}

/// The receivers of those that serve, as long as it is these who do.
#[derive(Debug)]
struct Team {
    round: u64,
    members: BTreeSet<ReceiverId>,
}

impl Handoff {
    /// No receivers yet.
    pub(super) fn new(service: &Service) -> Arc<Self> {
        Arc::new(Self {
            service: service.name().clone(),
            state: Mutex::new(State {
                // Above those of every earlier daemon, unless it gave out a million in a second.
                desk: Desk::new(clock::boottime_ms() * 1000),
                roster: Roster::of(service),
                round: 0,
                calls: BTreeMap::new(),
            }),
            changed: Condvar::new(),
        })
    }

    /// Takes note of who serves.
    pub(super) fn know(self: &Arc<Self>, service: &Service) {
        let roster = Roster::of(service);
        let mut state = self.lock();
        if state.roster == roster {
            return;
        }
        state.roster = roster;
        state.round += 1;
        drop(state);
        self.changed.notify_all();
        self.hand_out_later();
    }

    /// Hands connections to a process for as long as its call lasts.
    pub(super) fn subscribe(
        self: &Arc<Self>,
        process: ProcessId,
        replier: Replier,
        mut stopped: watch::Receiver<bool>,
    ) {
        let (call, removed) = oneshot::channel();
        let mut state = self.lock();
        let Some(id) = state.desk.subscribe(process, replier.feed()) else {
            drop(state);
            let refusal = Refusal::TooManyReceivers(self.service.clone());
            return replier.finish(Err(refusal.into()));
        };
        state.calls.insert(id, call);
        drop(state);
        debug!(service = %self.service, %process, "a receiver");
        self.hand_out_later();

        let this = Arc::downgrade(self);
        let service = self.service.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = replier.abandoned() => with(&this, |it| it.leave(id)),
                // The caller gets what is on its way, and after that the end of its call.
                _ = stopped.wait_for(|it| *it) => with(&this, |it| it.dismiss(id)),
                _ = removed => replier.finish(Err(Refusal::UnknownService(service).into())),
            }
        });
    }

    /// Answers a process that says that it has received a connection, once the daemon has nothing of
    /// that connection any more: its end must be its owner's doing.
    pub(super) fn acknowledge(
        self: &Arc<Self>,
        id: u64,
        process: ProcessId,
        replier: Replier,
        mut stopped: watch::Receiver<bool>,
    ) {
        let acknowledged = self.lock().desk.acknowledge(id, process);
        self.changed.notify_all();
        let answer = |yours| Ok(wire::Reply::Acknowledged(wire::Acknowledged { yours }));
        match acknowledged {
            Acknowledged::Others => replier.finish(answer(false)),
            Acknowledged::Before => replier.finish(answer(true)),
            Acknowledged::Now(closer) => {
                // There is room for one more, and nobody may come by who takes more from the queues.
                self.hand_out_later();
                tokio::spawn(async move {
                    tokio::select! {
                        () = closer.settled(0) => {}
                        _ = stopped.wait_for(|it| *it) => {}
                    }
                    replier.finish(answer(true));
                });
            }
        }
    }

    /// How many connections nobody has acknowledged yet.
    pub(super) fn pending(&self) -> u64 {
        let state = self.lock();
        (state.desk.given() + state.desk.waiting()) as u64
    }

    /// How many connections have been acknowledged so far.
    pub(super) fn acknowledged(&self) -> u64 {
        self.lock().desk.acknowledged()
    }

    /// How many receivers an instance has, or will have once it is registered. It looks into
    /// `/proc`.
    pub(super) fn receivers_of(&self, instance: ProcessId) -> u64 {
        let (receivers, roster) = self.everybody();
        let roster = roster.with(instance);
        let instances = receivers.iter().map(|(_, it)| roster.instance_of(*it));
        instances.filter(|it| *it == Some(instance)).count() as u64
    }

    fn leave(self: &Arc<Self>, id: ReceiverId) {
        let mut state = self.lock();
        state.calls.remove(&id);
        state.desk.leave(id);
        drop(state);
        self.changed.notify_all();
        self.hand_out_later();
    }

    fn dismiss(&self, id: ReceiverId) {
        let mut state = self.lock();
        state.calls.remove(&id);
        state.desk.dismiss(id);
    }

    /// Gives what waits to those that serve, beside the runtime.
    fn hand_out_later(self: &Arc<Self>) {
        if self.lock().desk.waiting() > 0 {
            let this = Arc::clone(self);
            task::spawn_blocking(move || this.hand_out(&this.team()));
        }
    }

    fn hand_out(&self, team: &Team) {
        let mut state = self.lock();
        if state.round == team.round {
            let reset = |it: &Passed| socket::is_reset(it.as_fd());
            state.desk.give_waiting(&team.members, reset);
        }
    }

    /// The receivers of those that serve.
    fn team(&self) -> Team {
        let round = self.lock().round;
        let (receivers, roster) = self.everybody();
        let members = receivers.into_iter().filter(|(_, it)| roster.serves(*it));
        Team {
            round,
            members: members.map(|(id, _)| id).collect(),
        }
    }

    fn everybody(&self) -> (Vec<(ReceiverId, ProcessId)>, Roster) {
        let state = self.lock();
        (state.desk.receivers().collect(), state.roster.clone())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Handoff {
    fn drop(&mut self) {
        let waiting = self.lock().desk.waiting();
        if waiting > 0 {
            warn!(service = %self.service, waiting, "connections that no receiver came for are closed");
        }
    }
}

impl State {
    fn has_room(&self, team: &Team) -> bool {
        self.round == team.round && self.desk.has_room(&team.members)
    }
}

/// The service may have been removed meanwhile.
fn with(handoff: &Weak<Handoff>, then: impl FnOnce(&Arc<Handoff>)) {
    if let Some(handoff) = handoff.upgrade() {
        then(&handoff);
    }
}
