//! The services of the configuration: added at the start, or as soon as they can be.

use std::time::Duration;

use tracing::warn;

use super::{config::Configured, driver::Driver, failure::bad_parameter};
use crate::api::wire::{Failure, Reason};

/// How long to wait before one is tried again; it doubles up to [`LONGEST_PAUSE`].
const PAUSE: Duration = Duration::from_secs(1);

/// The longest that somebody waits for a service that could be there.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

impl Driver {
    /// Adds a service of the configuration, unless it is there. After a boot, its user, its address or
    /// its network namespace may come later than the daemon, and one that was edited comes when the
    /// earlier one is removed: so it is tried until it is there.
    pub(super) fn add_configured(&mut self, service: Configured) {
        self.try_configured(service, PAUSE, None);
    }

    /// `said` is what kept it from being added the last time.
    fn try_configured(&mut self, service: Configured, pause: Duration, said: Option<&str>) {
        let definition = service.definition();
        let added = match definition {
            Ok(definition) => self.add(definition),
            Err(error) => Err(bad_parameter("user", &error)),
        };
        let Err(failure) = added else {
            return;
        };
        let Reason { message, hint, .. } = failure.reason();
        if said != Some(message) {
            let (service, hint) = (service.name(), hint.as_deref());
            warn!(%service, reason = message, hint, "a service of the configuration is not added");
        }
        // No kernel learns it by waiting.
        if matches!(failure, Failure::Unsupported(_)) {
            return;
        }
        let (next, said) = ((pause * 2).min(LONGEST_PAUSE), message.clone());
        self.later(pause, move |driver| {
            driver.try_configured(service, next, Some(&said));
        });
    }
}
