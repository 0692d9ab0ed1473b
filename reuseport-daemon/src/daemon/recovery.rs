//! Taking up what an earlier daemon left: its services, from the pins alone.

use tracing::{error, info, warn};

use super::{driver::Driver, managed::Managed};
use crate::{
    api::wire::Failure,
    chain::chain,
    domain::{self, Generation, Instance, ServiceName},
    steering::SteeringError,
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
        for name in services {
            match self.take_up(&name) {
                Ok(()) => info!(service = %name, "service taken up"),
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
        Ok(())
    }

    fn take_up(&mut self, name: &ServiceName) -> Result<(), Failure> {
        let (maps, state) = self.pins.open_service(name)?;
        let netns = self.netns_of(&state.definition)?;
        let instances: Vec<(Generation, Instance)> = state
            .instances
            .iter()
            .map(|(generation, instance)| (*generation, instance.clone()))
            .collect();
        let decision = domain::resume(&state);
        self.watch_log(&maps);
        let mut managed = Managed::new(state, maps, netns, self.exits.clone());
        for (generation, instance) in instances {
            // One that has ended meanwhile is noticed by this, as if it ended now.
            managed.watch(generation, &instance);
        }
        self.services.insert(name.clone(), managed);
        if let Err(error) = self.apply(name, decision) {
            error!(service = %name, error = chain(&error), "cannot finish what was under way");
        }
        Ok(())
    }
}
