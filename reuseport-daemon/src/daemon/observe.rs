//! What a migration waits for, seen to beside the driver.

use std::{
    collections::{BTreeSet, HashSet},
    io,
    os::fd::AsFd,
    sync::Arc,
    time::Duration,
};

use thiserror::Error;
use tokio::task;
use tracing::warn;

use super::{
    handoff::{Handoff, TakeError},
    inspect::{self, InspectError},
    managed::Managed,
    probe::Probe,
    wake::{Sleepers, Woken},
};
use crate::{
    chain::chain,
    domain::{
        Address, Drain, InstanceState, Options, ProcessId, Retire, SocketCookie, Wait, is_deaf,
    },
    sys::{
        grace::GracePeriod,
        netns::{Netns, NetnsError},
        process::{Process, unless_ended},
        signal::Signal,
        sock_diag::{Handshake, SockDiag, SockDiagError},
        socket,
    },
};

/// The pause after what is tried again, so that what stays as it is does not keep the daemon busy.
const PAUSE: Duration = Duration::from_millis(50);

/// What was seen.
#[derive(Debug)]
pub(super) enum Seen {
    /// The grace period has passed.
    GraceOver,
    /// A snapshot, or what is left of it.
    Reading {
        /// Handshakes that are still half-open.
        open: HashSet<Handshake>,
        /// Connections in the old accept queues, and those that were taken from there and that no
        /// receiver has acknowledged.
        queued: u64,
    },
    /// The new instance has too few listeners left at one of the service's addresses.
    Deaf,
    /// The old listeners have been retired.
    Retired {
        /// Why some could not.
        trouble: Option<String>,
        /// Whom the kernel left asleep then.
        woken: Woken,
    },
    /// It could not be seen.
    Missed,
}

/// The part of a service that is looked at.
#[derive(Debug)]
pub(super) struct Watched {
    netns: Arc<Netns>,
    addresses: Vec<Address>,
    /// The draining instances and their listeners.
    old: Vec<(ProcessId, HashSet<SocketCookie>)>,
    /// The new instance's listeners, group by group.
    new: Vec<HashSet<SocketCookie>>,
    /// Handshakes of the snapshot that were half-open the last time.
    open: Arc<HashSet<Handshake>>,
    /// Who gets what the old queues hold, where the daemon hands it over.
    handoff: Option<Arc<Handoff>>,
    sleepers: Sleepers,
}

#[derive(Debug, Error)]
enum ObserveError {
    #[error(transparent)]
    Netns(#[from] NetnsError),
    #[error(transparent)]
    SockDiag(#[from] SockDiagError),
    #[error(transparent)]
    Take(#[from] TakeError),
}

impl Watched {
    /// What a service's migration has to look at.
    pub(super) fn of(managed: &Managed, open: Arc<HashSet<Handshake>>, probe: Probe) -> Self {
        let state = &managed.state;
        let old = state
            .in_state(InstanceState::Draining)
            .map(|generation| {
                let cookies = state
                    .listeners_of(generation)
                    .map(|(cookie, _)| cookie)
                    .collect();
                (state.instances[&generation].process, cookies)
            })
            .collect();
        let migration = state.migration.as_ref();
        let to = migration.map(|it| it.to);
        let hands_over = migration.is_some_and(|it| it.options.drain == Drain::Handoff);
        let new = state.groups.iter().map(|group| {
            let listeners = group.slots.values();
            let ours = listeners.filter(|it| Some(it.generation) == to);
            ours.map(|it| it.cookie).collect()
        });
        Self {
            netns: Arc::clone(&managed.netns),
            addresses: state.definition.addresses.clone(),
            new: new.collect(),
            old,
            open,
            handoff: hands_over.then(|| Arc::clone(&managed.handoff)),
            sleepers: Sleepers::of(managed, probe),
        }
    }

    fn ports(&self) -> BTreeSet<u16> {
        self.addresses.iter().map(|it| it.socket.port()).collect()
    }

    /// Every half-open handshake at the service's addresses.
    fn handshakes(&self) -> Result<HashSet<Handshake>, ObserveError> {
        let diag = self.netns.enter(SockDiag::open)??;
        let mut found = HashSet::new();
        for port in self.ports() {
            let here = diag.handshakes(port)?.into_iter();
            found.extend(here.filter(|it| self.addresses.iter().any(|at| at.takes(it.local))));
        }
        Ok(found)
    }

    /// The order matters: a handshake that ends before the queues are looked at is then seen there.
    fn seen(&self, open: HashSet<Handshake>) -> Result<Seen, ObserveError> {
        let Some(queued) = self.queued()? else {
            return Ok(Seen::Deaf);
        };
        let pending = self.handoff.as_ref().map_or(0, |it| it.pending());
        let queued = queued + pending;
        Ok(Seen::Reading { open, queued })
    }

    /// How many connections wait in the old accept queues; none where the new instance has no
    /// listener left at one of the addresses.
    fn queued(&self) -> Result<Option<u64>, ObserveError> {
        let diag = self.netns.enter(SockDiag::open)??;
        let mut listening = HashSet::new();
        let mut queued = 0;
        for port in self.ports() {
            for listener in diag.listeners(Some(port))? {
                listening.insert(listener.cookie);
                if self.is_old(listener.cookie) {
                    queued += u64::from(listener.accept_queue);
                }
            }
        }
        let deaf = self.new.iter().any(|group| is_deaf(group, &listening));
        Ok((!deaf).then_some(queued))
    }

    fn is_old(&self, listener: SocketCookie) -> bool {
        self.old.iter().any(|(_, ours)| ours.contains(&listener))
    }

    fn snapshot(&self) -> Result<Seen, ObserveError> {
        self.seen(self.handshakes()?)
    }

    fn reading(&self) -> Result<Seen, ObserveError> {
        let mut open = HashSet::new();
        let diag = self.netns.enter(SockDiag::open)??;
        for handshake in self.open.iter() {
            if diag.is_half_open(handshake)? {
                open.insert(*handshake);
            }
        }
        if let Some(handoff) = &self.handoff
            && matches!(self.queued()?, Some(1..))
        {
            handoff.take_from(&self.old, &self.netns)?;
        }
        self.seen(open)
    }

    fn retire(&self, options: Options) -> Seen {
        let mut trouble = None;
        for (process, cookies) in &self.old {
            if let Err(error) = self.retire_one(*process, cookies, options) {
                trouble = Some(chain(&error));
            }
        }
        let woken = if options.closes_listeners() {
            self.sleepers.wake()
        } else {
            Woken::default()
        };
        Seen::Retired { trouble, woken }
    }

    /// The signal comes last: a process that ends closes what could not be shut down.
    fn retire_one(
        &self,
        process: ProcessId,
        listeners: &HashSet<SocketCookie>,
        options: Options,
    ) -> Result<(), InspectError> {
        if options.closes_listeners() {
            shut_down(process, &self.netns, listeners)?;
        }
        match options.retire {
            Retire::Keep | Retire::Shutdown => Ok(()),
            Retire::Signal(number) => signal(process, number),
        }
    }
}

/// Waits for what `wait` says, and tells what was seen.
pub(super) async fn observe(wait: Wait, watched: Watched, grace: GracePeriod) -> Seen {
    if let Wait::Reading { after } = wait {
        tokio::time::sleep(after).await;
    }
    let seen = task::spawn_blocking(move || match wait {
        Wait::Grace => grace
            .wait()
            .map(|()| Seen::GraceOver)
            .map_err(|it| chain(&it)),
        Wait::Snapshot => watched.snapshot().map_err(|it| chain(&it)),
        Wait::Reading { .. } => watched.reading().map_err(|it| chain(&it)),
        Wait::Retirement(options) => Ok(watched.retire(options)),
    })
    .await;
    let error = match seen {
        Ok(Ok(Seen::Deaf)) => {
            tokio::time::sleep(PAUSE).await;
            return Seen::Deaf;
        }
        Ok(Ok(seen)) => return seen,
        Ok(Err(error)) => error,
        Err(error) => error.to_string(),
    };
    warn!(%error, "cannot look after a migration; trying again");
    tokio::time::sleep(PAUSE).await;
    Seen::Missed
}

/// Shuts an instance's listeners down, through duplicates. A process that has ended has closed them.
/// One that cannot be shut down is no reason to leave the others open.
fn shut_down(
    process: ProcessId,
    netns: &Netns,
    cookies: &HashSet<SocketCookie>,
) -> Result<(), InspectError> {
    let mut result = Ok(());
    for socket in inspect::duplicates(process, netns, cookies)?.values() {
        match socket::shutdown(socket.as_fd()) {
            // It has stopped listening meanwhile, which is all that is wanted.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => {}
            Err(error) => result = Err(InspectError::Shutdown(error)),
            Ok(()) => {}
        }
    }
    result
}

fn signal(process: ProcessId, number: u32) -> Result<(), InspectError> {
    let signal = Signal::try_from(number)?;
    if let Some(process) = unless_ended(Process::reopen(process))? {
        unless_ended(process.signal(signal))?;
    }
    Ok(())
}
