//! A newer daemon's program in the place of an older one's: the maps stay, so that tables, slots and
//! counters go on as they are. They are those of the same
//! [`ABI_VERSION`](reuseport_common::ABI_VERSION): others are not opened in the first place.

use std::{fs, io, path::Path};

use super::{
    GroupMaps, Loader, ProgramKind, SteeringError,
    object::{self, MAPS},
    program::{self, Edition},
};

/// The pin of a program that has no place yet. Not a name of a map or of a program.
const STAGED: &str = "@program";

impl GroupMaps {
    /// Which edition of the program it has.
    ///
    /// # Errors
    ///
    /// Where the kernel does not tell.
    pub fn edition(&self) -> Result<Edition, SteeringError> {
        program::edition(&self.program, self.kind)
    }

    /// Loads the program that `loader` has onto the maps that are pinned in `directory`, and pins it in
    /// the old one's place. A group that runs the old one does until the new one is attached.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses; then it is the old program still.
    pub fn renew(&mut self, loader: &Loader, directory: &Path) -> Result<(), SteeringError> {
        let staged = directory.join(STAGED);
        discard(&staged)?;
        let maps = MAPS.map(|(name, pin)| (name, directory.join(pin)));
        let (mut ebpf, kind) = loader.load_onto(maps)?;
        object::program(&mut ebpf, kind)?
            .pin(&staged)
            .map_err(|source| SteeringError::Pin {
                path: staged.clone(),
                source,
            })?;
        let place = directory.join(kind.as_str());
        fs::rename(&staged, &place).map_err(|source| SteeringError::Path {
            verb: "rename",
            path: staged,
            source,
        })?;
        for other in [ProgramKind::Select, ProgramKind::SelectOrMigrate] {
            if other != kind {
                discard(&directory.join(other.as_str()))?;
            }
        }
        (self.program, self.kind) = program::open(directory)?;
        Ok(())
    }
}

/// Removes a pin that may be there.
fn discard(pin: &Path) -> Result<(), SteeringError> {
    match fs::remove_file(pin) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(SteeringError::Path {
            verb: "remove",
            path: pin.to_owned(),
            source,
        }),
        Ok(()) | Err(_) => Ok(()),
    }
}
