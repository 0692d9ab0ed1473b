//! Taking up what an earlier daemon left: its services, from the pins alone.

use std::time::Duration;

use tracing::{error, info, warn};

use super::{attachment, driver::Driver, event::RETRY, failure::failed};
use crate::{
    api::wire::Failure,
    chain::chain,
    domain::{self, Decision, Generation, Instance, ServiceName},
    steering::SteeringError,
};

/// How long after a service has been taken up its listeners are looked at. By then the ends of
/// processes are known that ended while no daemon was there, with all that they listened on.
const PAUSE: Duration = Duration::from_millis(100);

impl Driver {
    /// Takes up every service that is pinned. One that cannot be is said and left alone, and keeps
    /// steering as it did; the others are none the worse.
    ///
    /// # Errors
    ///
    /// Where not even the list of them can be read.
    pub(super) fn recover(&mut self) -> Result<(), SteeringError> {
        self.take_up_all()?;
        // What is left alone keeps its parking listeners too.
        self.left.close_all_but(&self.left_alone);
        Ok(())
    }

    fn take_up_all(&mut self) -> Result<(), SteeringError> {
        let (services, foreign) = self.pins.list()?;
        for path in foreign {
            warn!(path = %path.display(), "not a service's directory, left alone");
        }
        if services.is_empty() {
            return Ok(());
        }
        let edition = self.loader.edition()?;
        let mut taken_up = Vec::new();
        for name in services {
            match self.take_up(&name) {
                Ok(decision) => {
                    info!(service = %name, "service taken up");
                    self.renew(&name, edition);
                    self.watch_units(&name);
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
            self.go_on(&name, decision);
        }
        Ok(())
    }

    /// Finishes or undoes what was under way at a service that has been taken up, as soon as it can be.
    fn go_on(&mut self, name: &ServiceName, decision: Decision) {
        if let Err(error) = self.apply(name, decision) {
            error!(
                service = %name, error = chain(&error),
                "cannot finish what was under way; trying again"
            );
            let name = name.clone();
            return self.later(RETRY, move |driver| {
                let there = driver.services.get(&name);
                // A migration that has begun since goes on by itself.
                match there.filter(|_| !driver.runs.contains_key(&name)) {
                    Some(managed) => {
                        let decision = domain::resume(&managed.state);
                        driver.go_on(&name, decision);
                    }
                    None => driver.catch_up(&name),
                }
            });
        }
        // After its tables, which say the truth now.
        self.catch_up(name);
    }

    /// Sees to what may have happened to a service while no daemon was there. An instance that serves
    /// may have closed listeners: its slots are on record, and so the tables name them.
    fn catch_up(&self, name: &ServiceName) {
        let restored = self.services.get(name).map(attachment::restore);
        if let Some(Err(failure)) = restored {
            let reason = &failure.reason().message;
            warn!(service = %name, reason, "cannot see to it that its programs are attached");
        }
        // Processes may have ended while no daemon was there to see it.
        self.wake(name);
        self.see_to_closed_later(name, PAUSE);
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
        self.holders.prepare(&netns);
        let held = state
            .migration
            .as_ref()
            .and_then(|it| it.options.migrate_req);
        if let Some(was) = held {
            self.holders
                .note(&netns, name, was)
                .map_err(|error| failed("migrate-req", &chain(&error), None))?;
        }
        self.watch_log(&maps);
        let mut lot = self.lot(name, &netns);
        lot.take_back(&mut self.left, &state.definition);
        let mut managed = self.managed_of(state, maps, netns, lot);
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
