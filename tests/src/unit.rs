//! Control groups as systemd makes them for its units, made here without it.

use std::{fs, io::Write as _, path::PathBuf};

use anyhow::{Context as _, Result};
use reuseport_daemon::{lab::fixture::Fixture, sys::cgroup::Cgroups};

use crate::wait::until;

/// A slice of its own, with one slice in it. It is taken away when dropped, by when nobody must be in
/// it any more.
#[derive(Debug)]
pub struct Slice {
    outer: PathBuf,
    inner: PathBuf,
}

/// A unit in it. Taken away when dropped, as soon as nobody is in it.
#[derive(Debug)]
pub struct Unit(PathBuf);

impl Slice {
    /// With nothing in it.
    ///
    /// # Errors
    ///
    /// Where no unified hierarchy is mounted, or it is not to be changed.
    pub fn new() -> Result<Self> {
        let name = format!("reuseportd{}", std::process::id());
        let root = Cgroups::find()?.root();
        let outer = root.path().join(format!("{name}.slice"));
        let inner = outer.join(format!("{name}-game.slice"));
        fs::create_dir_all(&inner).with_context(|| format!("make {}", inner.display()))?;
        Ok(Self { outer, inner })
    }

    /// A unit of that name.
    ///
    /// # Errors
    ///
    /// Where it is there already.
    pub fn unit(&self, name: &str) -> Result<Unit> {
        let path = self.inner.join(name);
        fs::create_dir(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(Unit(path))
    }
}

impl Unit {
    /// Puts a server into it.
    ///
    /// # Errors
    ///
    /// Where it has ended.
    pub fn take(&self, server: &Fixture) -> Result<()> {
        let path = self.0.join("cgroup.procs");
        fs::write(&path, server.pid().to_string())
            .with_context(|| format!("write to {}", path.display()))
    }

    /// The same, into a group of its own within the unit.
    ///
    /// # Errors
    ///
    /// As [`Unit::take`].
    pub fn take_inside(&self, server: &Fixture) -> Result<Self> {
        let inner = Self(self.0.join("inner"));
        fs::create_dir(&inner.0)?;
        inner.take(server)?;
        Ok(inner)
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        // A process that has been killed leaves it a moment later.
        let removed = until("the unit is empty", || Ok(fs::remove_dir(&self.0).is_ok()));
        say(removed);
    }
}

impl Drop for Slice {
    fn drop(&mut self) {
        for path in [&self.inner, &self.outer] {
            say(fs::remove_dir(path).with_context(|| format!("remove {}", path.display())));
        }
    }
}

fn say(result: Result<()>) {
    if let Err(error) = result {
        // Nobody listens where this fails.
        let _ = writeln!(std::io::stderr(), "{error:#}");
    }
}
