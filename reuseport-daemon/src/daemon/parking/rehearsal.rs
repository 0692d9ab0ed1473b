//! Whether a service can park, found out before anything is made of it.

use std::os::fd::AsFd;

use super::LotError;
use crate::{
    domain::Definition,
    sys::{netns::Netns, parking},
};

/// Binds a socket at each of a service's addresses. None of them listens: they join no group, and no
/// connection comes to them.
///
/// # Errors
///
/// Where there can be no parking listener at one of them.
pub(in crate::daemon) fn rehearse(definition: &Definition, netns: &Netns) -> Result<(), LotError> {
    for address in &definition.addresses {
        netns.enter(|| {
            let made = parking::make(address, definition.owner, None)?;
            parking::bind(made.socket.as_fd(), address)
        })??;
    }
    Ok(())
}
