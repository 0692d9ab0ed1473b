//! A service that an older daemon left gets this one's program, before anything else is done with it.

use std::{collections::HashSet, os::fd::AsFd};

use thiserror::Error;
use tracing::{error, info};

use super::{
    driver::Driver,
    inspect::{self, InspectError},
    managed::Managed,
};
use crate::{
    chain::chain,
    domain::{Listener, ServiceName},
    steering::{Edition, Loader, Pins, SteeringError},
    sys::{
        passed::Passed,
        process::{Process, ProcessError},
    },
};

/// Why a group keeps an older program.
#[derive(Debug, Error)]
enum RenewalError {
    #[error(transparent)]
    Steering(#[from] SteeringError),
    #[error(transparent)]
    Inspect(#[from] InspectError),
}

impl Driver {
    /// Gives every group of a service the program of that edition. A group that cannot have it goes
    /// on with the one that it has.
    pub(super) fn renew(&mut self, name: &ServiceName, edition: Edition) {
        let Some(managed) = self.services.get_mut(name) else {
            return;
        };
        for index in 0..managed.state.groups.len() {
            let address = managed.state.groups[index].address.clone();
            match renew(managed, index, edition, &self.loader, &self.pins) {
                Ok(false) => {}
                Ok(true) => info!(service = %name, %address, "program renewed"),
                Err(error) => error!(
                    service = %name, %address, error = chain(&error),
                    "the group goes on with an older program"
                ),
            }
        }
    }
}

/// Tells whether the group had another program.
fn renew(
    managed: &mut Managed,
    index: usize,
    edition: Edition,
    loader: &Loader,
    pins: &Pins,
) -> Result<bool, RenewalError> {
    if managed.maps.group_mut(index)?.edition()? == edition {
        return Ok(false);
    }
    let group = &managed.state.groups[index];
    let directory = pins.place(managed.name()).join(group.address.directory());
    let listener = any_listener(managed, index)?;
    let socket = listener.as_ref().map(AsFd::as_fd);
    managed
        .maps
        .group_mut(index)?
        .renew(loader, &directory, socket)?;
    Ok(true)
}

/// A duplicate of one of the group's listeners, if it has any left.
fn any_listener(managed: &Managed, index: usize) -> Result<Option<Passed>, InspectError> {
    for Listener { cookie, generation } in managed.state.groups[index].slots.values() {
        let Some(instance) = managed.state.instances.get(generation) else {
            continue;
        };
        let process = match Process::reopen(instance.process) {
            Ok(process) => process,
            Err(ProcessError::NoProcess(_) | ProcessError::Replaced(_)) => continue,
            Err(error) => return Err(error.into()),
        };
        let cookies = HashSet::from([*cookie]);
        let found = inspect::duplicates(&process, &managed.netns, &cookies)?;
        if let Some(socket) = found.into_values().next() {
            return Ok(Some(socket));
        }
    }
    Ok(None)
}
