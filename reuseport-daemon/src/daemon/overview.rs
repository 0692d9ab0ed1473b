//! What sockets say of many services, in one look at each namespace: every look at the socket table
//! goes through all of it, however little is asked for.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use thiserror::Error;

use crate::{
    domain::Service,
    sys::{
        netns::{Netns, NetnsError, NetnsId},
        sock_diag::{Place, SockDiag, SockDiagError},
    },
};

/// Sockets that cannot be looked at.
#[derive(Debug, Error)]
pub(super) enum OverviewError {
    /// The network namespace.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The kernel's list of sockets.
    #[error(transparent)]
    SockDiag(#[from] SockDiagError),
}

/// What is at the places of several services.
#[derive(Debug, Default)]
pub(super) struct Overview {
    queues: HashMap<u64, Queue>,
    /// Inodes of sessions, in ascending order.
    sessions: BTreeMap<Place, Vec<u32>>,
}

/// A listener's accept queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Queue {
    /// Connections that wait to be accepted.
    pub waiting: u32,
    /// How many may wait.
    pub backlog: u32,
}

/// The namespaces of several services, and the places to look at in each.
#[derive(Debug, Default)]
pub(super) struct Places(HashMap<NetnsId, (Arc<Netns>, BTreeSet<Place>)>);

impl Places {
    /// Adds those of a service.
    pub(super) fn add(
        &mut self,
        netns: &Arc<Netns>,
        places: &BTreeSet<Place>,
    ) -> Result<NetnsId, NetnsError> {
        let id = netns.identity()?;
        let (_, here) = self
            .0
            .entry(id)
            .or_insert_with(|| (Arc::clone(netns), BTreeSet::new()));
        here.extend(places);
        Ok(id)
    }

    /// Looks at them.
    pub(super) fn look(self) -> HashMap<NetnsId, Result<Overview, OverviewError>> {
        let namespaces = self.0.into_iter();
        namespaces
            .map(|(id, (netns, places))| (id, Overview::of(&netns, &places)))
            .collect()
    }
}

impl Overview {
    fn of(netns: &Netns, places: &BTreeSet<Place>) -> Result<Self, OverviewError> {
        let diag = netns.enter(SockDiag::open)??;
        let ports: BTreeSet<u16> = places.iter().map(|it| it.port).collect();
        let only = ports.first().copied().filter(|_| ports.len() == 1);
        let listeners = diag.listeners(only)?.into_iter();
        let queue = |waiting, backlog| Queue { waiting, backlog };
        Ok(Self {
            queues: listeners
                .map(|it| (it.cookie.0, queue(it.accept_queue, it.backlog)))
                .collect(),
            sessions: diag.sessions_at(places)?,
        })
    }

    /// The accept queue of the listener with that cookie.
    pub(super) fn queue(&self, cookie: u64) -> Option<Queue> {
        self.queues.get(&cookie).copied()
    }

    /// The sessions at these places, whoever has them, in ascending order.
    pub(super) fn sessions(&self, places: &BTreeSet<Place>) -> Vec<u32> {
        let here = places.iter().filter_map(|it| self.sessions.get(it));
        let mut sessions: Vec<u32> = here.flatten().copied().collect();
        sessions.sort_unstable();
        sessions
    }
}

/// Where a service's sockets are.
pub(super) fn places(service: &Service) -> BTreeSet<Place> {
    let addresses = service.definition.addresses.iter().map(|it| it.socket);
    addresses
        .map(|it| Place {
            ipv6: it.is_ipv6(),
            port: it.port(),
        })
        .collect()
}
