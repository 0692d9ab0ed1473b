//! Why a parking listener cannot be opened.

use thiserror::Error;

use crate::sys::{netns::NetnsError, parking::ParkingError};

/// A parking listener cannot be opened.
#[derive(Debug, Error)]
pub(in crate::daemon) enum LotError {
    /// The network namespace.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The listener.
    #[error(transparent)]
    Open(#[from] ParkingError),
}

impl LotError {
    /// The system call's own error.
    pub(in crate::daemon) fn errno(&self) -> Option<i32> {
        match self {
            Self::Netns(_) => None,
            Self::Open(error) => error.io_error().raw_os_error(),
        }
    }
}
