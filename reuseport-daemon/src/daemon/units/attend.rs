//! The driver's part: a unit of a service's pattern is looked at until it listens, and registered.

use std::collections::HashSet;

use tracing::{info, warn};

use super::{
    expected::Expected,
    look::{Looked, at_unit},
    watch::Watch,
};
use crate::{
    api::wire::Failure,
    daemon::{
        driver::Driver,
        event::{Cause, Event, UnitEvent, again_after},
    },
    domain::{InstanceState, ServiceName, SocketCookie, next_look},
};

/// How it stands with a unit that was looked at.
enum Standing {
    /// It runs no process.
    Over,
    /// It is an instance.
    Registered,
    /// It does not listen.
    Silent,
}

impl Driver {
    /// Begins to watch for units of a service's pattern, if it has one.
    pub(in crate::daemon) fn watch_units(&mut self, name: &ServiceName) {
        let events = self.events.clone();
        if let Some(managed) = self.services.get_mut(name)
            && let Some(pattern) = managed.state.definition.instances.clone()
        {
            let owner = managed.state.definition.owner;
            managed.units.watch = Some(Watch::start(name.clone(), pattern, owner, events));
        }
    }

    /// A process of the service has ended; another one of its unit may have taken its place.
    pub(in crate::daemon) fn look_for_units(&self, name: &ServiceName) {
        if let Some(managed) = self.services.get(name) {
            managed.units.look_again();
        }
    }

    pub(in crate::daemon) fn on_unit(&mut self, event: UnitEvent) {
        let Some(managed) = self.services.get_mut(&event.service) else {
            return;
        };
        let units = &mut managed.units;
        let number = match event.cause {
            Cause::Stirred => {
                units.count += 1;
                let expected = Expected::from_now(units.count);
                units.expected.insert(event.group.clone(), expected);
                units.count
            }
            Cause::Again(number) => number,
        };
        let current = units.expected.get(&event.group);
        if current.is_none_or(|it| it.number != number) {
            return;
        }
        let state = &managed.state;
        let slots = state.groups.iter().flat_map(|it| it.slots.values());
        let mut known: HashSet<SocketCookie> = slots.map(|it| it.cookie).collect();
        known.extend(managed.lot.cookies());
        let instances = state.instances.values();
        let instances = instances.filter(|it| it.state != InstanceState::Gone);
        let instances = instances.map(|it| it.process).collect();
        let (unit, group) = (event.unit.clone(), event.group.clone());
        let service = event.service.clone();
        self.find(
            &service,
            move |definition, netns| {
                Ok(at_unit(
                    definition, netns, &unit, group, &known, &instances,
                )?)
            },
            move |driver, _, looked| driver.looked_at(event, number, looked),
        );
    }

    fn looked_at(&mut self, event: UnitEvent, number: u64, looked: Result<Looked, Failure>) {
        let (name, unit) = (&event.service, &event.unit);
        let current = |driver: &Self| {
            let units = &driver.services.get(name)?.units;
            let expected = units.expected.get(&event.group)?;
            (expected.number == number).then_some(())
        };
        // A look that something has happened since says nothing of now.
        if current(self).is_none() {
            return;
        }
        let looked = match looked {
            Ok(Looked::Gone) => Ok(Standing::Over),
            Ok(Looked::Known) => Ok(Standing::Registered),
            Ok(Looked::Silent) => Ok(Standing::Silent),
            Ok(Looked::Listening(found)) => {
                let taken = self.take_in(name, None, &found);
                taken.map(|_| Standing::Registered)
            }
            Err(failure) => Err(failure),
        };
        let Some(managed) = self.services.get_mut(name) else {
            return;
        };
        let units = &mut managed.units;
        let Some(expected) = units.expected.get_mut(&event.group) else {
            return;
        };
        match looked {
            Ok(Standing::Registered) if !expected.note_registered() => {}
            Ok(Standing::Over | Standing::Registered) => {
                units.expected.remove(&event.group);
                return;
            }
            Ok(Standing::Silent) => {}
            Err(failure) => {
                let message = failure.reason().message.clone();
                if expected.trouble.as_ref() != Some(&message) {
                    info!(service = %name, %unit, reason = message, "unit not registered yet");
                    expected.trouble = Some(message);
                }
            }
        }
        if let Some(pause) = next_look(expected.since.elapsed()) {
            let event = UnitEvent {
                cause: Cause::Again(number),
                ..event
            };
            return again_after(pause, &self.events, Event::Unit(event));
        }
        if let Some(reason) = expected.trouble.take() {
            warn!(service = %name, %unit, reason, "unit given up");
        }
        units.expected.remove(&event.group);
    }
}
