//! What can go wrong between the daemon and the kernel's maps and programs.

use std::{io, path::PathBuf};

use aya::{
    EbpfError,
    maps::MapError,
    pin::PinError,
    programs::{ProgramError, sk_reuseport::SkReuseportError},
};
use thiserror::Error;

use super::RecordError;

/// A failure to load, pin, open, read or write.
#[derive(Debug, Error)]
pub enum SteeringError {
    /// The object file could not be read.
    #[error("cannot read the eBPF object {path}")]
    ReadObject {
        /// Where it was looked for.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The object's maps could not be made.
    #[error("cannot load the eBPF object")]
    LoadObject(#[source] EbpfError),
    /// The object lacks something that the daemon needs.
    #[error("the eBPF object has no {0}")]
    Lacks(&'static str),
    /// The kernel took neither program.
    #[error("the kernel refuses the program {name}")]
    LoadProgram {
        /// The program.
        name: &'static str,
        /// Why.
        #[source]
        source: ProgramError,
    },
    /// A path on the bpffs.
    #[error("cannot {verb} {path}")]
    Path {
        /// What was tried.
        verb: &'static str,
        /// With what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another daemon pins there.
    #[error("another reuseportd uses {0}")]
    InUse(PathBuf),
    /// A pin could not be made.
    #[error("cannot pin {path}")]
    Pin {
        /// The pin.
        path: PathBuf,
        /// Why.
        #[source]
        source: PinError,
    },
    /// A pinned map could not be opened, or is not what it should be.
    #[error("cannot open the map {path}")]
    OpenMap {
        /// The pin.
        path: PathBuf,
        /// Why.
        #[source]
        source: MapError,
    },
    /// A pinned program could not be opened.
    #[error("cannot open the program {path}")]
    OpenProgram {
        /// The pin.
        path: PathBuf,
        /// Why.
        #[source]
        source: ProgramError,
    },
    /// Another version of the daemon wrote it.
    #[error("{path} has layout version {found}, and this daemon knows {expected}")]
    Abi {
        /// The pin.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// Ours.
        expected: u32,
    },
    /// What is written in a map makes no sense.
    #[error("{path} is not what this daemon writes")]
    Record {
        /// The pin.
        path: PathBuf,
        /// Why.
        #[source]
        source: RecordError,
    },
    /// A map could not be read or written.
    #[error("cannot {verb} the map {map}")]
    Map {
        /// What was tried.
        verb: &'static str,
        /// The map.
        map: &'static str,
        /// Why.
        #[source]
        source: MapError,
    },
    /// The program could not be attached to the group, or detached from it.
    #[error("cannot attach or detach the program")]
    Attach(#[source] ProgramError),
    /// The effect names a group that the service does not have.
    #[error("there is no group {0}")]
    NoGroup(usize),
}

impl SteeringError {
    /// The system call's own error, where one is at the bottom of it.
    #[must_use]
    pub fn io_error(&self) -> Option<&io::Error> {
        let mut source: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = source {
            if let Some(io) = error.downcast_ref::<io::Error>() {
                return Some(io);
            }
            // Not part of the chain, as it forwards its text.
            if let Some(SkReuseportError::SetsockoptError { io_error, .. }) = error.downcast_ref() {
                return Some(io_error);
            }
            source = error.source();
        }
        None
    }
}
