//! A program and its maps that belong to no service: to find out what this kernel takes.

use std::{fmt, fs, os::fd::BorrowedFd, path::Path};

use aya::{
    Ebpf,
    maps::{Array, Map, MapError, PerCpuArray, ReusePortSockArray},
};
use reuseport_common::{BUCKETS, SteeringTable, names};

use super::{Loader, ProgramKind, Runs, SteeringError, maps::wrap, object, pins::ASIDE};
use crate::domain::{Slot, TableCopy};

/// How many slots it has.
const SLOTS: u32 = 4;

/// A program and its maps. They are gone when this is dropped and no group runs the program.
pub struct Trial {
    object: Ebpf,
    kind: ProgramKind,
    active: TableCopy,
}

impl fmt::Debug for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trial")
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

impl Trial {
    /// Loads what a service's group would get.
    ///
    /// # Errors
    ///
    /// As [`Loader::load`].
    pub fn load(loader: &Loader) -> Result<Self, SteeringError> {
        let (object, kind) = loader.load(SLOTS)?;
        Ok(Self {
            object,
            kind,
            active: TableCopy::First,
        })
    }

    /// Which program the kernel takes.
    #[must_use]
    pub fn kind(&self) -> ProgramKind {
        self.kind
    }

    /// Pins a map in a new directory below `directory`, and takes both away again. What is left
    /// behind by a crash in between is cleared away like every directory that is half made.
    ///
    /// # Errors
    ///
    /// Where the file system refuses.
    pub fn pin_below(&self, directory: &Path) -> Result<(), SteeringError> {
        let error = |verb| {
            move |source| SteeringError::Path {
                verb,
                path: directory.to_owned(),
                source,
            }
        };
        let aside = tempfile::Builder::new()
            .prefix(&format!("{ASIDE}trial-"))
            .tempdir_in(directory)
            .map_err(error("create a directory below"))?;
        let path = aside.path().join("active");
        let pinned = self.map(names::ACTIVE)?.pin(&path);
        // By their names: to look for what is in a directory takes a descriptor, of which there may be
        // none.
        let unpinned = match pinned {
            Ok(()) => fs::remove_file(&path),
            Err(_) => Ok(()),
        };
        let removed = unpinned.and_then(|()| fs::remove_dir(aside.path()));
        pinned.map_err(|source| SteeringError::Pin { path, source })?;
        removed.map_err(error("remove a directory below"))
    }

    /// Puts a listener into a slot.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses.
    pub fn insert(&mut self, slot: Slot, socket: BorrowedFd<'_>) -> Result<(), SteeringError> {
        let mut sockets: ReusePortSockArray<_> = self.map_mut(names::SOCKETS)?;
        sockets
            .set(u32::from(slot.0), &socket, 0)
            .map_err(wrap("put a listener into", names::SOCKETS))
    }

    /// Lets the group of `socket` be steered.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses.
    pub fn attach(&mut self, socket: BorrowedFd<'_>) -> Result<(), SteeringError> {
        object::program(&mut self.object, self.kind)?
            .attach(socket)
            .map_err(SteeringError::Attach)
    }

    /// Sends everything to one slot from now on, in the way that a service is switched: the
    /// inactive table, then the word.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses.
    pub fn steer_to(&mut self, slot: Slot) -> Result<(), SteeringError> {
        let copy = self.active.other();
        let table = SteeringTable {
            slots: [slot.0; BUCKETS],
        };
        let mut steering: Array<_, SteeringTable> = self.map_mut(names::STEERING)?;
        steering
            .set(copy.index(), table, 0)
            .map_err(wrap("write", names::STEERING))?;
        let mut active: Array<_, u32> = self.map_mut(names::ACTIVE)?;
        active
            .set(0, copy.index(), 0)
            .map_err(wrap("write", names::ACTIVE))?;
        self.active = copy;
        Ok(())
    }

    /// How often the program ran.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses.
    pub fn runs(&self) -> Result<Runs, SteeringError> {
        let outcomes = PerCpuArray::try_from(self.map(names::OUTCOMES)?)
            .map_err(wrap("read", names::OUTCOMES))?;
        Runs::read(&outcomes)
    }

    fn map(&self, name: &'static str) -> Result<&Map, SteeringError> {
        self.object.map(name).ok_or(SteeringError::Lacks(name))
    }

    fn map_mut<'a, M>(&'a mut self, name: &'static str) -> Result<M, SteeringError>
    where
        M: TryFrom<&'a mut Map, Error = MapError>,
    {
        self.object
            .map_mut(name)
            .ok_or(SteeringError::Lacks(name))?
            .try_into()
            .map_err(wrap("use", name))
    }
}
