//! A service that an older daemon left gets this one's program, before anything else is done with it.

use tracing::{error, info};

use super::{driver::Driver, managed::Managed};
use crate::{
    chain::chain,
    domain::ServiceName,
    steering::{Edition, Loader, Pins, SteeringError},
};

impl Driver {
    /// Gives every group of a service the program of that edition, to be attached. One that cannot
    /// have it goes on with what it has.
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
) -> Result<bool, SteeringError> {
    let address = &managed.state.groups[index].address;
    let directory = pins.place(managed.name()).join(address.directory());
    let group = managed.maps.group_mut(index)?;
    if group.edition()? == edition {
        return Ok(false);
    }
    group.renew(loader, &directory)?;
    Ok(true)
}
