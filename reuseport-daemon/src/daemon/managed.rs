//! A service as the driver holds it, and how effects become system calls.

use std::{
    collections::{BTreeMap, HashMap},
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::mpsc, task::AbortHandle};
use tracing::error;

use super::{driver::Event, failure::PerformError, migration_run::Run};
use crate::{
    domain::{
        Decision, Effect, Generation, Instance, InstanceState, Service, ServiceName, SocketCookie,
    },
    steering::{GroupMaps, ServiceMaps, SteeringError},
    sys::{
        netns::Netns,
        process::{Process, ProcessError},
        readiness,
    },
};

/// Duplicates of a server's listeners, for as long as one operation needs them.
pub(super) type Sockets = HashMap<SocketCookie, OwnedFd>;

/// A service, its maps, and what is being waited for on its behalf.
#[derive(Debug)]
pub(super) struct Managed {
    /// What is true of it.
    pub state: Service,
    /// Where that is written.
    pub maps: ServiceMaps,
    /// Where its sockets are.
    pub netns: Arc<Netns>,
    /// The migration that is under way, seen from the driver.
    pub run: Option<Run>,
    watches: BTreeMap<Generation, Watch>,
}

/// What performing a decision showed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Performed {
    /// From before the first table was written until the last one was made active.
    pub switch: Option<(Instant, Duration)>,
}

impl Managed {
    /// A service with nothing under way.
    pub(super) fn new(state: Service, maps: ServiceMaps, netns: Arc<Netns>) -> Self {
        Self {
            state,
            maps,
            netns,
            run: None,
            watches: BTreeMap::new(),
        }
    }

    /// Its name.
    pub(super) fn name(&self) -> &ServiceName {
        self.state.name()
    }

    /// Performs a decision's effects in their order. Where one fails, those before it are undone in
    /// reverse, and nothing has changed.
    pub(super) fn perform(
        &mut self,
        decision: &Decision,
        sockets: &Sockets,
        events: &mpsc::UnboundedSender<Event>,
    ) -> Result<Performed, PerformError> {
        let mut begun = None;
        let mut performed = Performed::default();
        for (index, effect) in decision.effects.iter().enumerate() {
            if matches!(effect, Effect::WriteTable { .. }) {
                begun.get_or_insert_with(Instant::now);
            }
            if let Err(failure) = self.perform_one(effect, sockets, events) {
                self.undo(&decision.effects[..index], events);
                return Err(failure);
            }
            if let (Effect::Flip { .. }, Some(begun)) = (effect, begun) {
                performed.switch = Some((Instant::now(), begun.elapsed()));
            }
        }
        Ok(performed)
    }

    fn undo(&mut self, effects: &[Effect], events: &mpsc::UnboundedSender<Event>) {
        for effect in effects.iter().rev() {
            let Some(undo) = effect.undo(&self.state) else {
                continue;
            };
            if let Err(failure) = self.perform_one(&undo, &Sockets::new(), events) {
                // What is written and what is true differ now; a restart sets it right.
                error!(service = %self.name(), %failure, "cannot undo {}", effect.name());
            }
        }
    }

    fn perform_one(
        &mut self,
        effect: &Effect,
        sockets: &Sockets,
        events: &mpsc::UnboundedSender<Event>,
    ) -> Result<(), PerformError> {
        let done = match effect {
            Effect::Insert {
                group,
                slot,
                listener,
            } => {
                let socket = duplicate(sockets, listener.cookie)?;
                self.group(*group, |it| it.insert(*slot, *listener, socket.as_fd()))
            }
            Effect::Clear { group, slot } => self.group(*group, |it| it.clear(*slot)),
            Effect::Attach { group, cookie } => {
                let socket = duplicate(sockets, *cookie)?;
                self.group(*group, |it| it.attach(socket.as_fd()))
            }
            Effect::WriteTable { group, copy, table } => {
                self.group(*group, |it| it.write_table(*copy, table))
            }
            Effect::Flip { group, copy } => self.group(*group, |it| it.flip(*copy)),
            Effect::RecordGeneration(newest) => self.maps.record_generation(*newest),
            Effect::RecordMigration(migration) => self.maps.record_migration(migration.as_ref()),
            Effect::RecordInstance {
                generation,
                instance,
            } => {
                let written = self.maps.record_instance(*generation, instance);
                if written.is_ok() {
                    self.watch(*generation, instance, events);
                }
                written
            }
            Effect::ForgetInstance(generation) => {
                self.watches.remove(generation);
                self.maps.forget_instance(*generation)
            }
        };
        done.map_err(|source| PerformError::Steering {
            effect: effect.name(),
            source,
        })
    }

    fn group(
        &mut self,
        index: usize,
        change: impl FnOnce(&mut GroupMaps) -> Result<(), SteeringError>,
    ) -> Result<(), SteeringError> {
        change(self.maps.group_mut(index)?)
    }

    /// Watches an instance's process, if it is not watched already.
    pub(super) fn watch(
        &mut self,
        generation: Generation,
        instance: &Instance,
        events: &mpsc::UnboundedSender<Event>,
    ) {
        if instance.state == InstanceState::Gone {
            self.watches.remove(&generation);
        } else if !self.watches.contains_key(&generation) {
            let exited = Event::Exited {
                service: self.name().clone(),
                process: instance.process,
            };
            let watch = Watch::start(Process::reopen(instance.process), exited, events.clone());
            self.watches.insert(generation, watch);
        }
    }
}

fn duplicate(sockets: &Sockets, cookie: SocketCookie) -> Result<&OwnedFd, PerformError> {
    sockets
        .get(&cookie)
        .ok_or(PerformError::NoDuplicate(cookie))
}

/// Waits for a process to end, until it is dropped.
#[derive(Debug)]
struct Watch(Option<AbortHandle>);

impl Watch {
    fn start(
        process: Result<Process, ProcessError>,
        exited: Event,
        events: mpsc::UnboundedSender<Event>,
    ) -> Self {
        // A pidfd becomes readable when its process ends; one that cannot be opened has ended.
        let pidfd = process
            .ok()
            .and_then(|it| readiness::readable(it.into()).ok());
        let Some(pidfd) = pidfd else {
            let _ = events.send(exited);
            return Self(None);
        };
        let task = tokio::spawn(async move {
            // An error would come from epoll itself; the process counts as ended then, as it could
            // not be watched any more.
            let _ = pidfd.readable().await;
            let _ = events.send(exited);
        });
        Self(Some(task.abort_handle()))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}
