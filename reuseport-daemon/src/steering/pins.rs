//! The directory on the bpffs: made aside, renamed into place, and taken away.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with},
    io::Errno,
};

use super::{Loader, ServiceMaps, SteeringError};
use crate::domain::{Definition, Service, ServiceName};

/// Marks a directory that is being made or taken away. No service's name starts with it.
pub(super) const ASIDE: char = '@';

/// The directory on the bpffs that holds every service.
#[derive(Debug)]
pub struct Pins {
    root: PathBuf,
    /// Held locked, so that no second daemon changes what this one believes to know.
    _lock: File,
}

impl Pins {
    /// Uses `reuseportd` on the bpffs at `bpffs`, makes it if it is not there, and clears away what
    /// an earlier daemon left half made.
    ///
    /// # Errors
    ///
    /// Where it cannot be made or read, or another daemon uses it.
    pub fn open(bpffs: &Path) -> Result<Self, SteeringError> {
        let root = bpffs.join("reuseportd");
        if let Err(source) = fs::create_dir(&root)
            && source.kind() != io::ErrorKind::AlreadyExists
        {
            return Err(path_error("create", &root, source));
        }
        let lock = File::open(&root).map_err(|source| path_error("open", &root, source))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(SteeringError::InUse(root)),
            Err(errno) => return Err(path_error("lock", &root, errno.into())),
        }
        for directory in directories(&root)? {
            if name_of(&directory).starts_with(ASIDE) {
                remove(&directory)?;
            }
        }
        Ok(Self { root, _lock: lock })
    }

    /// The directory itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What is pinned: the services by name, and what else stands there.
    ///
    /// # Errors
    ///
    /// Where the directory cannot be read.
    pub fn list(&self) -> Result<(Vec<ServiceName>, Vec<PathBuf>), SteeringError> {
        let (mut services, mut foreign) = (Vec::new(), Vec::new());
        for directory in directories(&self.root)? {
            match name_of(&directory).parse() {
                Ok(name) => services.push(name),
                Err(_) => foreign.push(directory),
            }
        }
        services.sort();
        Ok((services, foreign))
    }

    /// Makes a service's maps and programs aside, and opens them. They are the service's once
    /// [`Pins::publish`] has put them in their place.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses; then nothing is left behind.
    pub fn create(
        &self,
        loader: &Loader,
        definition: &Definition,
    ) -> Result<(ServiceMaps, Service), SteeringError> {
        let name = &definition.name;
        self.clear_aside(name)?;
        let aside = self.aside(name);
        fs::create_dir(&aside).map_err(|source| path_error("create", &aside, source))?;
        let made = ServiceMaps::create(loader, &aside, definition)
            .and_then(|()| ServiceMaps::open(name, &aside));
        if made.is_err() {
            // The error to report is the first one; the next start clears away what remains.
            let _ = self.clear_aside(name);
        }
        made
    }

    /// Puts what was made aside in its place: from here on, the next start takes the service up.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses, or something is there already, such as another's directory, which a
    /// plain rename would take the place of if it is empty. Nothing has changed then.
    pub fn publish(&self, name: &ServiceName) -> Result<(), SteeringError> {
        let (place, aside) = (self.place(name), self.aside(name));
        renameat_with(CWD, &aside, CWD, &place, RenameFlags::NOREPLACE)
            .map_err(|errno| path_error("rename", &aside, errno.into()))
    }

    /// Opens a service's maps and programs, and reads the service as it was left.
    ///
    /// # Errors
    ///
    /// Where something is missing or is not what this daemon writes.
    pub fn open_service(
        &self,
        name: &ServiceName,
    ) -> Result<(ServiceMaps, Service), SteeringError> {
        ServiceMaps::open(name, &self.place(name))
    }

    /// Sets a service's pins aside: from here on, no start takes the service up. What its groups still
    /// use lives until they are closed.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses; then they are where they were.
    pub fn set_aside(&self, name: &ServiceName) -> Result<(), SteeringError> {
        self.clear_aside(name)?;
        let (place, aside) = (self.place(name), self.aside(name));
        fs::rename(&place, &aside).map_err(|source| path_error("rename", &place, source))
    }

    /// Takes away what is aside of a service's, if anything is.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses; the next start tries again.
    pub fn clear_aside(&self, name: &ServiceName) -> Result<(), SteeringError> {
        if self.has_aside(name) {
            remove(&self.aside(name))?;
        }
        Ok(())
    }

    /// Whether something is aside of a service's, which it is only where it could not be taken away.
    #[must_use]
    pub fn has_aside(&self, name: &ServiceName) -> bool {
        self.aside(name).exists()
    }

    /// Where a service's pins are.
    #[must_use]
    pub fn place(&self, name: &ServiceName) -> PathBuf {
        self.root.join(name.as_str())
    }

    fn aside(&self, name: &ServiceName) -> PathBuf {
        self.root.join(format!("{ASIDE}{name}"))
    }
}

/// The directories in a directory.
pub(super) fn directories(path: &Path) -> Result<Vec<PathBuf>, SteeringError> {
    let read = |path: &Path| -> io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                found.push(entry.path());
            }
        }
        Ok(found)
    };
    read(path).map_err(|source| path_error("read", path, source))
}

fn remove(path: &Path) -> Result<(), SteeringError> {
    fs::remove_dir_all(path).map_err(|source| path_error("remove", path, source))
}

fn name_of(path: &Path) -> &str {
    path.file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default()
}

fn path_error(verb: &'static str, path: &Path, source: io::Error) -> SteeringError {
    SteeringError::Path {
        verb,
        path: path.to_owned(),
        source,
    }
}
