//! Parking listeners: the only listeners that the daemon keeps, being its own.
//!
//! What is to become of them is the domain's to say, after every change of a service
//! ([`domain::park`](crate::domain::park)). Their sockets, and the time that passes while nobody
//! serves, are here.

mod error;
mod left;
mod let_go;
mod listener;
mod name;
mod rehearsal;
mod store;
mod templates;
mod tend;

use std::{collections::BTreeMap, mem, os::fd::AsFd, sync::Arc, time::Duration};

use tokio::{sync::mpsc, task::AbortHandle};
use tracing::{info, warn};

use self::listener::ParkingListener;
pub(super) use self::{
    error::LotError,
    left::Left,
    rehearsal::rehearse,
    store::{Keeping, Store},
};
use super::{
    event::{Event, again_after},
    task::Task,
};
use crate::{
    api::wire,
    chain::chain,
    domain::{Definition, Generation, Parking, Service, ServiceName, SocketCookie},
    sys::{
        clock::{self, millis},
        grace::GracePeriod,
        netns::Netns,
        parking::{self, Queue, Template},
    },
};

/// How long until what could not be had is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// What is kept of a service's parking listeners.
#[derive(Debug)]
pub(super) struct Lot {
    service: ServiceName,
    netns: Arc<Netns>,
    grace: GracePeriod,
    events: mpsc::UnboundedSender<Event>,
    store: Arc<Store>,
    /// Those that are open, by group.
    listeners: BTreeMap<usize, ParkingListener>,
    /// Those that an earlier daemon left, until others have taken their place.
    left: BTreeMap<usize, Vec<ParkingListener>>,
    /// Those that others have taken the place of, until they are closed.
    leaving: Vec<(SocketCookie, AbortHandle)>,
    /// Groups that nobody serves.
    unserved: BTreeMap<usize, Unserved>,
    /// What the instances' listeners are set to.
    templates: BTreeMap<(Generation, usize), Template>,
    /// What the listeners that an earlier daemon left are set to.
    left_templates: BTreeMap<usize, Template>,
    /// Whether it has been said that the service manager does not keep them.
    warned: bool,
    /// Why a group cannot park.
    troubles: BTreeMap<usize, String>,
    /// Whether what could not be had is about to be tried again.
    tries_again: bool,
}

/// A group that nobody serves.
#[derive(Debug)]
struct Unserved {
    /// Since when, in milliseconds of `CLOCK_BOOTTIME`.
    since_ms: u64,
    /// Tells when connections have waited for as long as they may.
    _timer: Task,
}

impl Lot {
    /// No parking listeners yet.
    pub(super) fn new(
        service: ServiceName,
        netns: Arc<Netns>,
        grace: GracePeriod,
        events: mpsc::UnboundedSender<Event>,
        store: Arc<Store>,
    ) -> Self {
        Self {
            service,
            netns,
            grace,
            events,
            store,
            listeners: BTreeMap::new(),
            left: BTreeMap::new(),
            leaving: Vec::new(),
            unserved: BTreeMap::new(),
            templates: BTreeMap::new(),
            left_templates: BTreeMap::new(),
            warned: false,
            troubles: BTreeMap::new(),
            tries_again: false,
        }
    }

    /// Takes listeners that an earlier daemon left, until there are others in their place.
    pub(super) fn take_back(&mut self, left: &mut Left, definition: &Definition) {
        for (group, listener) in left.take(definition, &self.netns) {
            let template = Template::of(listener.as_fd());
            self.left_templates.entry(group).or_insert(template);
            self.left.entry(group).or_default().push(listener);
        }
    }

    /// Opens a parking listener that is set as those of the instance that serves, or of the last one
    /// that is known. It has no slot yet.
    ///
    /// The service manager has it before it listens, so that no connection is ever in a listener that
    /// ends with the daemon, if there is a way.
    pub(super) fn open(
        &mut self,
        state: &Service,
        group: usize,
    ) -> Result<ParkingListener, LotError> {
        let address = &state.definition.addresses[group];
        let owner = state.definition.owner;
        let template = self.template(state, group);
        let made = self
            .netns
            .enter(|| parking::make(address, owner, template))??;
        if !made.unset.is_empty() {
            warn!(
                service = %self.service, listen = %address, options = made.unset.join(" "),
                "connections that wait are not set as the server sets them"
            );
        }
        let (socket, cookie) = (made.socket, made.cookie);
        let mut listener =
            ParkingListener::new(socket, cookie, address.clone(), &self.service, &self.store);
        let keeping = listener.keep();
        match parking::listen(listener.as_fd(), address) {
            Ok(()) => {
                self.note(&keeping);
                Ok(listener)
            }
            Err(error) => {
                listener.close();
                Err(error.into())
            }
        }
    }

    /// Takes a listener that has its slot. Whatever had it before is let go of.
    pub(super) fn put(&mut self, group: usize, listener: ParkingListener) {
        let watched = listener.watch(&self.service, group, &self.events);
        self.leaving.retain(|(_, task)| !task.is_finished());
        let before = self.listeners.insert(group, watched).into_iter();
        for old in before.chain(self.left.remove(&group).unwrap_or_default()) {
            let cookie = old.cookie;
            let task = let_go::start(
                old,
                &self.service,
                Arc::clone(&self.netns),
                self.grace,
                self.events.clone(),
            );
            self.leaving.push((cookie, task));
        }
        self.troubles.remove(&group);
    }

    /// Closes a group's parking listener, with whatever waits in it. Those that an earlier daemon left
    /// stay until others have taken their place, which may not have been possible yet.
    pub(super) fn close(&mut self, group: usize) {
        if let Some(open) = self.listeners.remove(&group) {
            open.close();
        }
    }

    /// Keeps packets from all that is open, since it is about to be closed; tells whether anything is.
    /// One grace period later the kernel resets nothing by that.
    pub(super) fn ignore_packets(&self) -> bool {
        for listener in self.all() {
            if let Err(error) = listener.ignore_packets() {
                warn!(
                    service = %self.service, %error,
                    "a parking listener is closed while packets come to it"
                );
            }
        }
        self.all().next().is_some()
    }

    /// Takes that back, since it is not closed after all.
    pub(super) fn take_packets(&self) {
        for listener in self.all() {
            if let Err(error) = listener.take_packets() {
                warn!(service = %self.service, %error, "no packets come to a parking listener");
            }
        }
    }

    fn all(&self) -> impl Iterator<Item = &ParkingListener> {
        let left = self.left.values().flatten();
        self.listeners.values().chain(left)
    }

    /// Closes all of them, and those that an earlier daemon left.
    pub(super) fn close_all(&mut self) {
        let open = mem::take(&mut self.listeners);
        let left = mem::take(&mut self.left).into_values().flatten();
        self.unserved.retain(|group, _| !open.contains_key(group));
        let all = open.into_values().chain(left);
        all.for_each(ParkingListener::close);
    }

    /// Whether one that another has taken the place of is not closed yet.
    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.iter().any(|(_, task)| !task.is_finished())
    }

    /// The group's parking listener, if it is open.
    fn at(&self, group: usize) -> Option<SocketCookie> {
        self.listeners.get(&group).map(|it| it.cookie)
    }

    /// Whether the group's parking listener is that socket.
    fn is_at(&self, group: usize, cookie: SocketCookie) -> bool {
        self.at(group) == Some(cookie)
    }

    /// The sockets, which are in the groups and no instance's.
    pub(in crate::daemon) fn cookies(&self) -> impl Iterator<Item = SocketCookie> {
        let leaving = self.leaving.iter().filter(|(_, task)| !task.is_finished());
        let open = self.all().map(|it| it.cookie);
        open.chain(leaving.map(|(cookie, _)| *cookie))
    }

    /// Whether what waits in a group outlives the daemon.
    pub(super) fn is_kept(&self, group: usize) -> bool {
        self.listeners.get(&group).is_some_and(|it| it.kept)
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

    /// Says what becomes of those who wait when the daemon stops.
    pub(super) fn take_leave(&self) {
        let waiting = |kept: bool| -> u32 {
            let listeners = self.listeners.iter();
            let groups = listeners.filter(|(_, it)| it.kept == kept);
            let queues = groups.filter_map(|(group, _)| self.queue(*group));
            queues.map(|it| it.queued).sum()
        };
        let (kept, lost) = (waiting(true), waiting(false));
        if kept > 0 {
            info!(
                service = %self.service,
                "{kept} connections wait for an instance, and for the next daemon"
            );
        }
        if lost > 0 {
            warn!(
                service = %self.service,
                "{lost} connections wait for an instance, and are lost with this stop"
            );
        }
    }

    /// Tries again in a while what could not be had, once for all of it.
    fn try_again(&mut self) {
        if !self.tries_again {
            self.tries_again = true;
            let again = Event::ParkAgain(self.service.clone());
            again_after(RETRY, &self.events, again);
        }
    }

    /// Forgets what could not be had, to try it again, and has those listeners kept that are not.
    fn begin_again(&mut self) {
        self.tries_again = false;
        self.troubles.clear();
        let listeners = self.listeners.values_mut();
        let asked = listeners.filter(|it| !it.kept).map(ParkingListener::keep);
        for keeping in asked.collect::<Vec<_>>() {
            self.note(&keeping);
        }
    }

    fn note(&mut self, keeping: &Keeping) {
        if keeping.may_change() {
            self.try_again();
        }
        let trouble = keeping.trouble();
        if let Some(trouble) = &trouble
            && !self.warned
        {
            warn!(
                service = %self.service, trouble,
                "connections that wait end with the daemon"
            );
        }
        self.warned = trouble.is_some();
    }

    /// Takes note of why a group cannot park.
    fn note_trouble(&mut self, group: usize, error: &(dyn std::error::Error + 'static)) {
        let trouble = chain(error);
        warn!(service = %self.service, group, trouble, "connections cannot be parked");
        self.troubles.insert(group, trouble);
        self.try_again();
    }
}
