//! A service as the driver holds it, and how effects become system calls.

use std::{
    collections::BTreeMap,
    io,
    os::fd::AsFd,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use thiserror::Error;
use tokio::sync::mpsc;
use tracing::error;

use super::{
    event::{Event, again_later},
    handoff::Handoff,
    inspect::Sockets,
    migrate_req::{HoldError, Holders},
    parking::{Lot, LotError},
    units::Units,
    watch::{Exit, Exits, Watch},
};
use crate::{
    chain::chain,
    domain::{
        Decision, Effect, Generation, Instance, InstanceState, Occasion, Service, ServiceName,
        SocketCookie,
    },
    steering::{GroupMaps, ServiceMaps, SteeringError},
    sys::{netns::Netns, passed::Passed},
};

/// A service, its maps, and what is being waited for on its behalf.
#[derive(Debug)]
pub(super) struct Managed {
    /// What is true of it.
    pub state: Service,
    /// Where that is written.
    pub maps: ServiceMaps,
    /// Where its sockets are.
    pub netns: Arc<Netns>,
    /// Who receives connections for it.
    pub handoff: Arc<Handoff>,
    /// Its parking listeners.
    pub lot: Lot,
    /// For what its sleepers were last woken.
    pub woken: Arc<Mutex<Option<Occasion>>>,
    /// Units that may become instances.
    pub units: Units,
    /// Tells it from a later service of the same name.
    pub identity: Arc<()>,
    watches: BTreeMap<Generation, Watch>,
    /// What could not be done or undone, and is to be before anything else is.
    owed: Vec<Effect>,
    events: mpsc::UnboundedSender<Event>,
    exits: Exits,
    holders: Arc<Holders>,
}

/// What performing a decision showed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Performed {
    /// From before the first table was written until the last one was made active.
    pub switch: Option<(Instant, Duration)>,
}

/// An effect that could not be performed.
#[derive(Debug, Error)]
pub(super) enum PerformError {
    /// The kernel said no.
    #[error("{effect} failed")]
    Steering {
        /// The effect.
        effect: &'static str,
        /// What the kernel said.
        #[source]
        source: SteeringError,
    },
    /// The switch could not be turned.
    #[error("tcp_migrate_req cannot be turned")]
    MigrateReq(#[from] HoldError),
    /// There is no parking listener to be had.
    #[error(transparent)]
    Parking(#[from] LotError),
    /// The effect needs a listener that nobody duplicated.
    #[error("no duplicate of the listener with cookie {0}")]
    NoDuplicate(SocketCookie),
}

impl PerformError {
    /// The system call's own error, if one is at the bottom of it.
    pub(super) fn errno(&self) -> Option<i32> {
        match self {
            Self::Steering { source, .. } => source.io_error().and_then(io::Error::raw_os_error),
            Self::Parking(error) => error.errno(),
            Self::MigrateReq(_) | Self::NoDuplicate(_) => None,
        }
    }
}

impl Managed {
    /// A service with nothing under way.
    pub(super) fn new(
        state: Service,
        maps: ServiceMaps,
        netns: Arc<Netns>,
        lot: Lot,
        events: mpsc::UnboundedSender<Event>,
        exits: Exits,
        holders: Arc<Holders>,
    ) -> Self {
        Self {
            owed: Vec::new(),
            events,
            holders,
            handoff: Handoff::new(&state),
            state,
            maps,
            netns,
            lot,
            woken: Arc::default(),
            units: Units::default(),
            identity: Arc::default(),
            watches: BTreeMap::new(),
            exits,
        }
    }

    /// Its name.
    pub(super) fn name(&self) -> &ServiceName {
        self.state.name()
    }

    /// Performs a decision's effects in their order. Where one fails, it and those before it are undone
    /// in reverse, and nothing has changed.
    pub(super) fn perform(
        &mut self,
        decision: &Decision,
        sockets: &Sockets,
    ) -> Result<Performed, PerformError> {
        self.pay()?;
        let mut begun = None;
        let mut performed = Performed::default();
        for (index, effect) in decision.effects.iter().enumerate() {
            if matches!(effect, Effect::WriteTable { .. }) {
                begun.get_or_insert_with(Instant::now);
            }
            if let Err(failure) = self.perform_one(effect, sockets) {
                if matches!(effect, Effect::ReleaseMigrateReq { .. }) {
                    // A migration ends all the same.
                    self.owe(effect.clone(), &failure);
                    self.pay_later();
                    continue;
                }
                // That one too: it may be half done.
                self.undo(&decision.effects[..=index]);
                return Err(failure);
            }
            if let (Effect::Flip { .. }, Some(begun)) = (effect, begun) {
                performed.switch = Some((Instant::now(), begun.elapsed()));
            }
        }
        Ok(performed)
    }

    fn undo(&mut self, effects: &[Effect]) {
        for effect in effects.iter().rev() {
            let Some(undo) = effect.undo(&self.state) else {
                continue;
            };
            if let Err(failure) = self.perform_one(&undo, &Sockets::new()) {
                self.owe(undo, &failure);
            }
        }
        if !self.owed.is_empty() {
            self.pay_later();
        }
    }

    /// Takes note of what is to be done as soon as it can be. Until then what is written and what is
    /// true differ.
    fn owe(&mut self, effect: Effect, failure: &PerformError) {
        let (name, error) = (self.name(), chain(failure));
        error!(service = %name, error, "cannot {} now; trying again", effect.name());
        self.owed.push(effect);
    }

    fn pay_later(&self) {
        again_later(&self.events, Event::Owed(self.name().clone()));
    }

    fn pay(&mut self) -> Result<(), PerformError> {
        while let Some(owed) = self.owed.first().cloned() {
            self.perform_one(&owed, &Sockets::new())?;
            self.owed.remove(0);
        }
        Ok(())
    }

    /// Does what is owed, or tries again later.
    pub(super) fn pay_or_try_again(&mut self) {
        if self.pay().is_err() {
            self.pay_later();
        }
    }

    fn perform_one(&mut self, effect: &Effect, sockets: &Sockets) -> Result<(), PerformError> {
        let done = match effect {
            Effect::Insert {
                group,
                slot,
                listener,
            } => {
                let socket = duplicate(sockets, listener.cookie)?;
                if self.state.definition.park_timeout.is_some() {
                    self.lot.learn(listener.generation, *group, socket);
                }
                self.group(*group, |it| it.insert(*slot, *listener, socket.as_fd()))
            }
            Effect::Clear { group, slot } => self.group(*group, |it| it.clear(*slot)),
            Effect::Attach { group, cookie } => {
                let socket = duplicate(sockets, *cookie)?;
                self.group(*group, |it| it.attach(socket.as_fd()))
            }
            Effect::OpenParking { group } | Effect::RotateParking { group } => {
                let listener = self.lot.open(&self.state, *group)?;
                let parked = self.group(*group, |it| it.park(listener.as_fd()));
                match &parked {
                    Ok(()) => self.lot.put(*group, listener),
                    Err(_) => listener.close(),
                }
                parked
            }
            Effect::CloseParking { group } => {
                self.lot.close(*group);
                Ok(())
            }
            Effect::HoldMigrateReq { was } => {
                return Ok(self.holders.hold(&self.netns, self.name(), *was)?);
            }
            Effect::ReleaseMigrateReq { was } => {
                return Ok(self.holders.release(&self.netns, self.name(), *was)?);
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
                    self.watch(*generation, instance);
                }
                written
            }
            Effect::ForgetInstance(generation) => {
                let forgotten = self.maps.forget_instance(*generation);
                if forgotten.is_ok() {
                    self.watches.remove(generation);
                }
                forgotten
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
    pub(super) fn watch(&mut self, generation: Generation, instance: &Instance) {
        if instance.state == InstanceState::Gone {
            self.watches.remove(&generation);
            return;
        }
        let exit = Exit {
            service: self.name().clone(),
            process: instance.process,
        };
        let exits = &self.exits;
        self.watches
            .entry(generation)
            .or_insert_with(|| Watch::start(exit, exits.clone()));
    }
}

fn duplicate(sockets: &Sockets, cookie: SocketCookie) -> Result<&Passed, PerformError> {
    sockets
        .get(&cookie)
        .ok_or(PerformError::NoDuplicate(cookie))
}
