//! A newer daemon's program in the place of an older one's: the maps stay, so that tables, slots and
//! counters go on as they are, and the kernel exchanges the program of a group in one step
//! (`reuseport_attach_prog`,
//! <https://elixir.bootlin.com/linux/v6.18/source/net/core/sock_reuseport.c>).
//!
//! The maps are those of the same [`ABI_VERSION`](reuseport_common::ABI_VERSION): others are not
//! opened in the first place.

use std::{fs, io, os::fd::BorrowedFd, path::Path};

use super::{
    GroupMaps, Loader, ProgramKind, SteeringError,
    group::OBJECT_MAPS,
    object,
    program::{self, Edition},
};

/// The pin of a program that does not run yet. Not a name of a map or of a program.
const STAGED: &str = "@program";

impl GroupMaps {
    /// Which edition of the program it runs.
    ///
    /// # Errors
    ///
    /// Where the kernel does not tell.
    pub fn edition(&self) -> Result<Edition, SteeringError> {
        program::edition(&self.program, self.kind)
    }

    /// Loads the program that `loader` has onto the maps that are pinned in `directory`, lets the
    /// group of `socket` run it, and pins it in the old one's place. Without a socket nobody
    /// listens, and the next listener that is put into a slot brings the group the new program.
    ///
    /// Killed in between, the next start finds the old program pinned, and does it again.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses; then the group runs the old program.
    pub fn renew(
        &mut self,
        loader: &Loader,
        directory: &Path,
        socket: Option<BorrowedFd<'_>>,
    ) -> Result<(), SteeringError> {
        let staged = directory.join(STAGED);
        discard(&staged)?;
        let maps = OBJECT_MAPS.map(|(name, pin)| (name, directory.join(pin)));
        let (mut ebpf, kind) = loader.load_onto(&maps)?;
        let fresh = object::program(&mut ebpf, kind)?;
        fresh.pin(&staged).map_err(|source| SteeringError::Pin {
            path: staged.clone(),
            source,
        })?;
        if let Some(socket) = socket
            && let Err(source) = fresh.attach(socket)
        {
            // The error to report is the first one.
            let _ = discard(&staged);
            return Err(SteeringError::Attach(source));
        }
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
