//! Every way in which a connection gets lost, with what closes it left out, and with it.
//!
//! docs/zero-loss.md says which row each of these belongs to.

pub(crate) mod daemon;
mod drain;
pub(crate) mod grace;
pub(crate) mod overflow;
pub(crate) mod queued;
pub(crate) mod snapshot;
