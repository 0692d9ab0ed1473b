//! Parking listeners: the only listeners that the daemon keeps, being its own.
//!
//! What is to become of them is the domain's to say, after every change of a service
//! ([`domain::park`](crate::domain::park)). Their sockets, and the time that passes while nobody
//! serves, are here.

mod let_go;
mod listener;
mod tend;

use std::{collections::BTreeMap, os::fd::AsFd, sync::Arc, time::Duration};

use thiserror::Error;
use tokio::{sync::mpsc, task::AbortHandle};
use tracing::{info, warn};

use self::listener::ParkingListener;
use super::driver::Event;
use crate::{
    api::wire,
    chain::chain,
    domain::{Generation, InstanceState, Parking, Service, ServiceName, SocketCookie},
    sys::{
        clock,
        grace::GracePeriod,
        netns::{Netns, NetnsError},
        parking::{self, ParkingError, Queue, Template},
        passed::Passed,
    },
};

/// What is kept of a service's parking listeners.
#[derive(Debug)]
pub(super) struct Lot {
    service: ServiceName,
    netns: Arc<Netns>,
    grace: GracePeriod,
    events: mpsc::UnboundedSender<Event>,
    /// Those that are open, by group.
    listeners: BTreeMap<usize, ParkingListener>,
    /// Those that others have taken the place of, until they are closed.
    leaving: Vec<(SocketCookie, AbortHandle)>,
    /// Groups that nobody serves.
    unserved: BTreeMap<usize, Unserved>,
    /// What the instances' listeners are set to.
    templates: BTreeMap<(Generation, usize), Template>,
    /// Why a group cannot park.
    troubles: BTreeMap<usize, String>,
}

/// A parking listener cannot be opened.
#[derive(Debug, Error)]
pub(super) enum LotError {
    /// The network namespace.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The listener.
    #[error(transparent)]
    Open(#[from] ParkingError),
}

impl LotError {
    /// The system call's own error.
    pub(super) fn errno(&self) -> Option<i32> {
        match self {
            Self::Netns(_) => None,
            Self::Open(error) => error.io_error().raw_os_error(),
        }
    }
}

/// A group that nobody serves.
#[derive(Debug)]
struct Unserved {
    /// Since when, in milliseconds of `CLOCK_BOOTTIME`.
    since_ms: u64,
    /// Tells when connections have waited for as long as they may.
    _timer: Task,
}

/// A task that ends when this is dropped.
#[derive(Debug)]
struct Task(AbortHandle);

impl Task {
    fn start(task: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(task).abort_handle())
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Lot {
    /// No parking listeners yet.
    pub(super) fn new(
        service: ServiceName,
        netns: Arc<Netns>,
        grace: GracePeriod,
        events: mpsc::UnboundedSender<Event>,
    ) -> Self {
        Self {
            service,
            netns,
            grace,
            events,
            listeners: BTreeMap::new(),
            leaving: Vec::new(),
            unserved: BTreeMap::new(),
            templates: BTreeMap::new(),
            troubles: BTreeMap::new(),
        }
    }

    /// Takes note of what an instance's listener is set to, once for each group: its workers' are
    /// set the same.
    pub(super) fn learn(&mut self, generation: Generation, group: usize, listener: &Passed) {
        self.templates
            .entry((generation, group))
            .or_insert_with(|| Template::of(listener.as_fd()));
    }

    /// Opens a parking listener that is set as those of the instance that serves, or of the last one
    /// that is known. It has no slot yet.
    pub(super) fn open(&self, state: &Service, group: usize) -> Result<ParkingListener, LotError> {
        let address = &state.definition.addresses[group];
        let owner = state.definition.owner;
        let template = self.template(state, group);
        let opened = self
            .netns
            .enter(|| parking::open(address, owner, template))??;
        if !opened.unset.is_empty() {
            warn!(
                service = %self.service, listen = %address, options = opened.unset.join(" "),
                "connections that wait are not set as the server sets them"
            );
        }
        let (socket, cookie) = (opened.socket, opened.cookie);
        Ok(ParkingListener::new(socket, cookie, address.clone()))
    }

    /// Takes a listener that has its slot. One that had it before is let go of.
    pub(super) fn put(&mut self, group: usize, listener: ParkingListener) {
        let watched = listener.watch(&self.service, group, &self.events);
        if let Some(old) = self.listeners.insert(group, watched) {
            let cookie = old.cookie;
            let task = let_go::start(
                old,
                &self.service,
                Arc::clone(&self.netns),
                self.grace,
                self.events.clone(),
            );
            self.leaving.retain(|(_, task)| !task.is_finished());
            self.leaving.push((cookie, task));
        }
        self.troubles.remove(&group);
    }

    /// Closes a group's parking listener, with whatever waits in it.
    pub(super) fn close(&mut self, group: usize) {
        self.listeners.remove(&group);
    }

    /// Whether the group's parking listener is that socket.
    fn is_at(&self, group: usize, cookie: SocketCookie) -> bool {
        self.listeners
            .get(&group)
            .is_some_and(|it| it.cookie == cookie)
    }

    /// The sockets, which are in the groups and no instance's.
    pub(in crate::daemon) fn cookies(&self) -> impl Iterator<Item = SocketCookie> {
        let leaving = self.leaving.iter().filter(|(_, task)| !task.is_finished());
        let open = self.listeners.values().map(|it| it.cookie);
        open.chain(leaving.map(|(cookie, _)| *cookie))
    }

    /// Why a group cannot park, where it should.
    pub(super) fn trouble(&self, group: usize) -> Option<&str> {
        self.troubles.get(&group).map(String::as_str)
    }

    /// The accept queue of a group's parking listener, if it is open.
    fn queue(&self, group: usize) -> Option<Queue> {
        let listener = self.listeners.get(&group)?;
        match parking::queue(listener.as_fd()) {
            Ok(queue) => Some(queue),
            Err(error) => {
                warn!(service = %self.service, %error, "cannot read a parking listener's queue");
                None
            }
        }
    }

    /// How a group's parking stands; nothing where the service does not park.
    pub(super) fn status(&self, state: &Service, group: usize) -> Option<wire::ParkingStatus> {
        let timeout = state.definition.park_timeout?;
        let queue = self.queue(group);
        let since = self.unserved.get(&group).map(|it| it.since_ms);
        Some(wire::ParkingStatus {
            open: self.listeners.contains_key(&group),
            queued: queue.map_or(0, |it| it.queued),
            backlog: queue.map(|it| it.backlog),
            unserved_ms: since.map(|it| clock::boottime_ms().saturating_sub(it)),
            timeout_ms: millis(timeout),
        })
    }

    /// Lets time count for the groups that nobody serves, and for no other.
    fn count_time(&mut self, state: &Service) {
        let Some(timeout) = state.definition.park_timeout else {
            return;
        };
        for (index, group) in state.groups.iter().enumerate() {
            match group.parking {
                Parking::Waiting => {
                    if !self.unserved.contains_key(&index) {
                        let unserved = self.unserved_from_now(index, timeout);
                        self.unserved.insert(index, unserved);
                        info!(
                            service = %self.service, listen = %group.address,
                            "nobody serves: connections wait for at most {timeout:?}"
                        );
                    }
                }
                Parking::TimedOut => {}
                Parking::Closed | Parking::Spare => {
                    self.unserved.remove(&index);
                }
            }
        }
        self.templates
            .retain(|(generation, _), _| state.instances.contains_key(generation));
    }

    fn unserved_from_now(&self, group: usize, timeout: Duration) -> Unserved {
        let since_ms = clock::boottime_ms();
        let event = Event::ParkTimeout {
            service: self.service.clone(),
            group,
            since_ms,
        };
        let events = self.events.clone();
        Unserved {
            since_ms,
            _timer: Task::start(async move {
                tokio::time::sleep(timeout).await;
                // An error means that the daemon is stopping.
                let _ = events.send(event);
            }),
        }
    }

    /// Says what a stop costs: the sockets end with the daemon.
    pub(super) fn take_leave(&self) {
        let waiting: u32 = self
            .listeners
            .keys()
            .filter_map(|group| self.queue(*group))
            .map(|it| it.queued)
            .sum();
        if waiting > 0 {
            warn!(
                service = %self.service,
                "{waiting} connections wait for an instance, and are lost with this stop"
            );
        }
    }

    fn template(&self, state: &Service, group: usize) -> Option<&Template> {
        let mut here = self.templates.iter().filter(|((_, it), _)| *it == group);
        let serving = state.in_state(InstanceState::Serving).next_back();
        let of_serving = serving.and_then(|it| self.templates.get(&(it, group)));
        of_serving.or_else(|| here.next_back().map(|(_, template)| template))
    }

    /// Takes note of why a group cannot park. Tells whether that is news.
    fn note_trouble(&mut self, group: usize, error: &(dyn std::error::Error + 'static)) -> bool {
        let trouble = chain(error);
        warn!(service = %self.service, group, trouble, "connections cannot be parked");
        self.troubles.insert(group, trouble).is_none()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
