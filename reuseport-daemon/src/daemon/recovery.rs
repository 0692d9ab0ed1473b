//! Taking up what an earlier daemon left: its services, from the pins alone.

use std::sync::Arc;

use tracing::{error, info, warn};

use super::{attachment, driver::Driver, failure::failed, managed::Managed};
use crate::{
    api::wire::Failure,
    chain::chain,
    domain::{self, Decision, Generation, Instance, ServiceName},
    steering::SteeringError,
    sys::memory,
};

impl Driver {
    /// Takes up every service that is pinned. One that cannot be is said and left alone, and keeps
    /// steering as it did; the others are none the worse.
    ///
    /// # Errors
    ///
    /// Where not even the list of them can be read.
    pub(super) fn recover(&mut self) -> Result<(), SteeringError> {
        let (services, foreign) = self.pins.list()?;
        for path in foreign {
            warn!(path = %path.display(), "not a service's directory, left alone");
        }
        if services.is_empty() {
            return Ok(());
        }
        let edition = self.loader.edition()?;
        memory::give_back();
        let mut taken_up = Vec::new();
        for name in services {
            match self.take_up(&name) {
                Ok(decision) => {
                    info!(service = %name, "service taken up");
                    self.renew(&name, edition);
                    taken_up.push((name, decision));
                }
                Err(failure) => {
                    let reason = failure.reason().message.clone();
                    error!(
                        service = %name, path = %self.pins.place(&name).display(), reason,
                        "service left alone: it goes on as it is, and cannot be migrated"
                    );
                    self.left_alone.insert(name, reason);
                }
            }
        }
        // Afterwards, when it is known of all of them who holds `tcp_migrate_req`: what one lets go of,
        // another may hold still.
        for (name, decision) in taken_up {
            if let Err(error) = self.apply(&name, decision) {
                error!(service = %name, error = chain(&error), "cannot finish what was under way");
            }
            // After its tables, which say the truth now.
            let restored = self.services.get(&name).map(attachment::restore);
            if let Some(Err(failure)) = restored {
                let reason = &failure.reason().message;
                warn!(service = %name, reason, "cannot see to it that its programs are attached");
            }
            // Processes may have ended while no daemon was there to see it.
            self.wake(&name);
        }
        Ok(())
    }

    /// Takes a service up as it is, and decides how to go on with it.
    fn take_up(&mut self, name: &ServiceName) -> Result<Decision, Failure> {
        let (maps, state) = self.pins.open_service(name)?;
        let netns = self.netns_of(&state.definition)?;
        let instances: Vec<(Generation, Instance)> = state
            .instances
            .iter()
            .map(|(generation, instance)| (*generation, instance.clone()))
            .collect();
        let decision = domain::resume(&state);
        self.switch.prepare(&netns);
        let held = state
            .migration
            .as_ref()
            .and_then(|it| it.options.migrate_req);
        if let Some(was) = held {
            self.switch
                .note(&netns, name, was)
                .map_err(|error| failed("migrate-req", &chain(&error), None))?;
        }
        self.watch_log(&maps);
        let switch = Arc::clone(&self.switch);
        let lot = self.lot(name, &netns);
        let (events, exits) = (self.events.clone(), self.exits.clone());
        let mut managed = Managed::new(state, maps, netns, lot, events, exits, switch);
        if let Err(error) = managed.learn_templates() {
            warn!(
                service = %name, error = chain(&error),
                "cannot tell what the server's listeners are set to; connections that wait are not \
                 set the same"
            );
        }
        for (generation, instance) in instances {
            // One that has ended meanwhile is noticed by this, as if it ended now.
            managed.watch(generation, &instance);
        }
        self.services.insert(name.clone(), managed);
        Ok(decision)
    }
}
