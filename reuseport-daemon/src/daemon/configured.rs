//! The services of the configuration: added at the start, or as soon as they can be.

use std::{sync::Arc, time::Duration};

use tracing::warn;

use super::{
    config::Configured,
    driver::{Driver, Then},
    failure::{bad_parameter, failed},
};
use crate::{
    api::wire::{Failure, Reason},
    chain::chain,
    domain::{Address, Definition},
    sys::{
        netns::{Netns, NetnsError},
        sock_diag::{SockDiag, SockDiagError},
    },
};

/// How long to wait before one is tried again; it doubles up to [`LONGEST_PAUSE`].
const PAUSE: Duration = Duration::from_secs(1);

/// The longest that somebody waits for a service that could be there.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// One that could not be added yet.
#[derive(Debug)]
struct Pending {
    service: Configured,
    pause: Duration,
    /// What kept it from being added the last time, as it has been said.
    said: Option<String>,
}

impl Driver {
    /// Adds a service of the configuration, unless it is there. After a boot, its user, its address or
    /// its network namespace may come later than the daemon, so that it is tried until it is there.
    pub(super) fn add_configured(&mut self, service: Configured) {
        let definition = owned(&service);
        let first = Pending {
            service,
            pause: PAUSE,
            said: None,
        };
        self.try_to_add(first, definition);
    }

    fn try_to_add(&mut self, pending: Pending, definition: Result<Definition, Failure>) {
        let Err(failure) = definition.and_then(|it| self.add(it)) else {
            return;
        };
        let name = pending.service.name();
        let Reason { message, hint, .. } = failure.reason();
        if pending.said.as_ref() != Some(message) {
            let hint = hint.as_deref();
            warn!(service = %name, reason = message, hint, "a service of the configuration is not added");
        }
        // What is there of its name goes on as it is, and no kernel learns anything by waiting.
        let there = self.services.contains_key(name) || self.left_alone.contains_key(name);
        if there || matches!(failure, Failure::Unsupported(_)) {
            return;
        }
        let next = Pending {
            pause: (pending.pause * 2).min(LONGEST_PAUSE),
            said: Some(message.clone()),
            service: pending.service,
        };
        self.later(pending.pause, |driver| driver.look_again(next));
    }

    /// Beside the driver: a directory of users may take its time.
    fn look_again(&self, pending: Pending) {
        let (home, to) = (Arc::clone(&self.home), self.found.clone());
        self.beside.run(move || {
            let definition = owned(&pending.service).and_then(|it| unserved(it, &home));
            let then: Then = Box::new(|driver| driver.try_to_add(pending, definition));
            // An error means that the daemon is stopping.
            let _ = to.send(then);
        });
    }
}

/// The service, with its user as the user database has it now.
fn owned(service: &Configured) -> Result<Definition, Failure> {
    let definition = service.definition();
    definition.map_err(|error| bad_parameter("user", &error))
}

/// A service that nobody serves who would have to be registered first: from when it is added until then,
/// all who come would wait. At the daemon's start that is to be expected, but not at some time later.
fn unserved(definition: Definition, home: &Netns) -> Result<Definition, Failure> {
    if definition.park_timeout.is_none() || definition.instances.is_some() {
        return Ok(definition);
    }
    match listened_at(&definition, home) {
        Ok(None) => Ok(definition),
        Ok(Some(address)) => Err(failed(
            "served-already",
            &format!("somebody listens at {address}, and is not registered: who comes would wait"),
            Some("`reuseportctl service add` it, and `register` who serves"),
        )),
        Err(error) => Err(failed("inspection", &chain(&error), None)),
    }
}

#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error(transparent)]
    Netns(#[from] NetnsError),
    #[error(transparent)]
    SockDiag(#[from] SockDiagError),
}

/// The first of a service's addresses that somebody listens at.
fn listened_at(definition: &Definition, home: &Netns) -> Result<Option<Address>, LookError> {
    let elsewhere = definition.netns.as_ref();
    let elsewhere = elsewhere.map(|it| Netns::open(it.as_ref())).transpose()?;
    let look = || -> Result<Option<Address>, LookError> {
        let diag = SockDiag::open()?;
        for address in &definition.addresses {
            let rows = diag.listeners(Some(address.socket.port()))?;
            if rows.iter().any(|it| it.address == *address) {
                return Ok(Some(address.clone()));
            }
        }
        Ok(None)
    };
    elsewhere.as_ref().unwrap_or(home).enter(look)?
}
