//! Listeners that an instance has closed, which nobody tells the daemon.

use std::{collections::BTreeSet, time::Duration};

use tracing::{info, warn};

use super::{driver::Driver, event::RETRY, failure, inspect};
use crate::{
    api::wire::Failure,
    domain::{self, ServiceName, SocketCookie},
};

impl Driver {
    /// Takes the listeners of a service that have been closed out of their slots, once no migration is
    /// under way, which has its own ways with them. What fails is tried again.
    pub(super) fn see_to_closed(&self, name: &ServiceName) {
        let Some(managed) = self.services.get(name) else {
            return;
        };
        if managed.state.migration.is_some() {
            return self.see_to_closed_later(name, RETRY);
        }
        self.look_for_closed(name, |driver, name, looked| {
            if let Err(failure) = looked
                && driver.services.contains_key(name)
            {
                let reason = &failure.reason().message;
                warn!(service = %name, reason, "cannot see to closed listeners; trying again");
                driver.see_to_closed_later(name, RETRY);
            }
        });
    }

    /// The same, after a pause.
    pub(super) fn see_to_closed_later(&self, name: &ServiceName, pause: Duration) {
        let name = name.clone();
        self.later(pause, move |driver| driver.see_to_closed(&name));
    }

    /// Looks beside the driver for listeners of a service that have been closed, takes them out of their
    /// slots, and then goes on. What has come since the look began is not judged by it.
    pub(super) fn look_for_closed(
        &self,
        name: &ServiceName,
        then: impl FnOnce(&mut Self, &ServiceName, Result<(), Failure>) + Send + 'static,
    ) {
        let Some(managed) = self.services.get(name) else {
            return;
        };
        let slots = managed.state.groups.iter().flat_map(|it| it.slots.values());
        let known: BTreeSet<SocketCookie> = slots.map(|it| it.cookie).collect();
        self.find(
            name,
            |definition, netns| Ok(inspect::open_listeners(definition, netns)?),
            move |driver, name, found| {
                let looked = found.and_then(|listening| {
                    let closed = known.difference(&listening).copied().collect();
                    driver.forget_closed(name, &closed)
                });
                then(driver, name, looked);
            },
        );
    }

    fn forget_closed(
        &mut self,
        name: &ServiceName,
        closed: &BTreeSet<SocketCookie>,
    ) -> Result<(), Failure> {
        let managed = self.managed(name)?;
        let decision = domain::listeners_closed(&managed.state, closed);
        if decision.effects.is_empty() {
            return Ok(());
        }
        for (generation, instance) in &managed.state.instances {
            let listeners = managed.state.listeners_of(*generation);
            let gone = listeners.filter(|it| closed.contains(&it.0)).count();
            if gone > 0 {
                info!(
                    service = %name, instance = %instance.label, listeners = gone,
                    "an instance has closed listeners"
                );
            }
        }
        self.apply(name, decision)
            .map_err(|error| failure::not_performed(&error, None))
    }
}
