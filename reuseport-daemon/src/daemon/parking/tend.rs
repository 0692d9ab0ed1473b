//! The driver's part: what it does about parking when something has changed.

use std::sync::Arc;

use tracing::{error, warn};

use super::{
    super::{
        driver::Driver,
        event::{Event, again_later},
        inspect::{self, InspectError, Sockets},
        managed::{Managed, PerformError},
    },
    Lot,
};
use crate::{
    chain::chain,
    domain::{self, InstanceState, Parking, ServiceName, SocketCookie},
    sys::netns::Netns,
};

impl Driver {
    /// Sees to a service's parking listeners after a change. A service that cannot park serves all
    /// the same, so that what fails here undoes nothing; it is tried again.
    pub(in crate::daemon) fn park(&mut self, name: &ServiceName) {
        let Some(managed) = self.services.get_mut(name) else {
            return;
        };
        for group in 0..managed.state.groups.len() {
            if let Err(error) = park_group(managed, group) {
                managed.lot.note_trouble(group, &error);
            }
        }
        managed.lot.count_time(&managed.state);
    }

    /// Opens the parking listeners of a service that has just been made, or none of them.
    pub(in crate::daemon) fn park_first(&mut self, name: &ServiceName) -> Result<(), PerformError> {
        let Some(managed) = self.services.get_mut(name) else {
            return Ok(());
        };
        for group in 0..managed.state.groups.len() {
            park_group(managed, group)?;
        }
        managed.lot.count_time(&managed.state);
        Ok(())
    }

    /// Closes a service's parking listeners, since it is about to be removed: before its program is
    /// taken away, which is what moves their connections to whoever listens.
    pub(in crate::daemon) fn stop_parking(
        &mut self,
        name: &ServiceName,
    ) -> Result<(), PerformError> {
        let Some(managed) = self.services.get_mut(name) else {
            return Ok(());
        };
        let decision = domain::stop_parking(&managed.state);
        managed.perform(&decision, &Sockets::new())?;
        managed.state = decision.next;
        managed.lot.close_all();
        Ok(())
    }

    /// A place for the parking listeners of a service.
    pub(in crate::daemon) fn lot(&self, name: &ServiceName, netns: &Arc<Netns>) -> Lot {
        Lot::new(
            name.clone(),
            Arc::clone(netns),
            self.grace,
            self.events.clone(),
            Arc::clone(&self.store),
        )
    }

    pub(in crate::daemon) fn on_park_again(&mut self, name: &ServiceName) {
        if let Some(managed) = self.services.get_mut(name) {
            managed.lot.begin_again();
        }
        self.park(name);
    }

    /// Nobody has served for as long as connections may wait.
    pub(in crate::daemon) fn on_park_timeout(
        &mut self,
        name: &ServiceName,
        group: usize,
        since_ms: u64,
    ) {
        let Some(managed) = self.services.get(name) else {
            return;
        };
        let current = managed.lot.unserved.get(&group);
        if current.is_none_or(|it| it.since_ms != since_ms) {
            return;
        }
        let decision = domain::park_timed_out(&managed.state, group);
        if decision.effects.is_empty() {
            return;
        }
        let waiting = managed.lot.queue(group).map_or(0, |it| it.queued);
        let listen = managed.state.groups[group].address.clone();
        match self.apply(name, decision) {
            Ok(()) => warn!(
                service = %name, %listen,
                "nobody has served for too long: {waiting} connections that waited are refused, \
                 and so are all others until an instance serves"
            ),
            Err(error) => {
                error!(
                    service = %name, error = chain(&error),
                    "cannot close a parking listener; trying again"
                );
                let again = Event::ParkTimeout {
                    service: name.clone(),
                    group,
                    since_ms,
                };
                again_later(&self.events, again);
            }
        }
    }

    /// A connection has been parked. Where somebody serves, an instance has closed a listener, or
    /// has ended and nobody knows yet.
    pub(in crate::daemon) fn on_parked(
        &mut self,
        name: &ServiceName,
        group: usize,
        cookie: SocketCookie,
    ) {
        let Some(managed) = self.services.get(name) else {
            return;
        };
        // It may be a later service of that name, with fewer groups.
        let there = managed.state.groups.get(group);
        let spare = there.is_some_and(|it| it.parking == Parking::Spare);
        if !spare || !managed.lot.is_at(group, cookie) {
            return;
        }
        let again = Event::Parked {
            service: name.clone(),
            group,
            cookie,
        };
        if managed.state.migration.is_some() {
            return again_later(&self.events, again);
        }
        self.look_for_closed(name, move |driver, name, looked| match looked {
            // What has been parked goes to those that are left, if any.
            Ok(()) => driver.move_parked(name, group),
            Err(failure) => {
                let reason = &failure.reason().message;
                warn!(service = %name, reason, "cannot look for listeners; trying again");
                again_later(&driver.events, again);
            }
        });
    }

    /// One that served has ended, and another one may have taken over by now. In between connections
    /// have been parked, or are about to be, their handshakes being under way.
    pub(in crate::daemon) fn move_all_parked(&mut self, name: &ServiceName) {
        let groups = self
            .services
            .get(name)
            .map_or(0, |it| it.state.groups.len());
        for group in 0..groups {
            self.move_parked(name, group);
        }
    }

    fn move_parked(&mut self, name: &ServiceName, group: usize) {
        let Some(managed) = self.services.get(name) else {
            return;
        };
        let decision = domain::parked(&managed.state, group);
        if decision.effects.is_empty() {
            return;
        }
        let parked = managed.lot.at(group);
        if let Err(error) = self.apply(name, decision) {
            error!(
                service = %name, error = chain(&error),
                "cannot move parked connections; trying again"
            );
            if let Some(cookie) = parked {
                let again = Event::Parked {
                    service: name.clone(),
                    group,
                    cookie,
                };
                again_later(&self.events, again);
            }
        }
    }
}

impl Managed {
    /// Takes note of what the listeners of whoever serves are set to, which an earlier daemon knew.
    pub(in crate::daemon) fn learn_templates(&mut self) -> Result<(), InspectError> {
        if self.state.definition.park_timeout.is_none() {
            return Ok(());
        }
        for generation in self.state.in_state(InstanceState::Serving) {
            let process = self.state.instances[&generation].process;
            let cookies = self
                .state
                .listeners_of(generation)
                .map(|(cookie, _)| cookie);
            let sockets = inspect::duplicates(process, &self.netns, &cookies.collect())?;
            for (cookie, group) in self.state.listeners_of(generation) {
                if let Some(socket) = sockets.get(&cookie) {
                    self.lot.learn(generation, group, socket);
                }
            }
        }
        Ok(())
    }
}

fn park_group(managed: &mut Managed, group: usize) -> Result<(), PerformError> {
    let decision = domain::park(&managed.state, group);
    managed.perform(&decision, &Sockets::new())?;
    managed.state = decision.next;
    Ok(())
}
