//! Listeners that an instance has closed, which nobody tells the daemon.

use std::collections::BTreeSet;

use tracing::{error, info};

use super::{driver::Driver, inspect};
use crate::{
    api::wire::Failure,
    chain::chain,
    domain::{self, ServiceName, SocketCookie},
};

impl Driver {
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
                let looked = found.map(|listening| {
                    let closed = known.difference(&listening).copied().collect();
                    driver.forget_closed(name, &closed);
                });
                then(driver, name, looked);
            },
        );
    }

    fn forget_closed(&mut self, name: &ServiceName, closed: &BTreeSet<SocketCookie>) {
        let Some(managed) = self.services.get(name) else {
            return;
        };
        let decision = domain::listeners_closed(&managed.state, closed);
        if decision.effects.is_empty() {
            return;
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
        if let Err(error) = self.apply(name, decision) {
            error!(service = %name, error = chain(&error), "cannot take listeners out of their slots");
        }
    }
}
