//! How much a daemon holds, as numbers that must not grow.

use anyhow::{Context, Result};

use crate::{
    stage::Stage,
    traces::{descriptors, tree},
    usage,
    wait::until,
};

/// What a daemon holds. A map or a program of its making lives by a descriptor, by a pin or by a
/// server's socket, so that these are counted too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holdings {
    /// Open descriptors.
    pub descriptors: usize,
    /// Threads.
    pub threads: usize,
    /// Files and directories on its bpffs.
    pub pins: usize,
    /// Instances that it knows.
    pub instances: usize,
    /// Slots that their listeners have.
    pub slots: usize,
    /// Memory of its own that is resident, in KiB: not what it maps of files.
    pub resident: u64,
}

/// How much more memory may be resident, in KiB: the allocator has an arena for each thread. A hundred
/// bytes kept of each of 10,000 migrations would be as much.
const SLACK: u64 = 1024;

impl Holdings {
    /// Those of the stage's daemon.
    ///
    /// # Errors
    ///
    /// Where they cannot be read.
    pub fn of(stage: &Stage) -> Result<Self> {
        let pid = stage.daemon().pid();
        let services = stage.daemon().status()?;
        let instances = || services.iter().flat_map(|it| &it.instances);
        Ok(Self {
            descriptors: descriptors(pid)?.len(),
            threads: usage::threads(pid)?,
            pins: tree(&stage.home().bpffs())?.len(),
            instances: instances().count(),
            slots: instances().map(|it| it.listeners.len()).sum(),
            resident: usage::resident_of_its_own(pid)?,
        })
    }

    /// The daemon holds what it held then, as soon as connections that have been answered are closed,
    /// but for memory and for threads that may have something to do another time.
    ///
    /// # Errors
    ///
    /// Where it holds something else.
    pub fn unchanged(&self, stage: &Stage) -> Result<()> {
        let counted = |it: Self| Self {
            threads: 0,
            resident: 0,
            ..it
        };
        let mut now = *self;
        until("it holds what it held", || {
            now = Self::of(stage)?;
            Ok(counted(now) == counted(*self))
        })
        .with_context(|| format!("{self:?} became {now:?}"))
    }

    /// The most of each kind that either has.
    #[must_use]
    pub fn or_more(self, other: Self) -> Self {
        Self {
            descriptors: self.descriptors.max(other.descriptors),
            threads: self.threads.max(other.threads),
            pins: self.pins.max(other.pins),
            instances: self.instances.max(other.instances),
            slots: self.slots.max(other.slots),
            resident: self.resident.max(other.resident),
        }
    }

    /// The daemon holds no more than this, once threads have ended that have had nothing to do for a
    /// while.
    ///
    /// # Errors
    ///
    /// Where it holds on to more.
    pub fn not_exceeded(&self, stage: &Stage) -> Result<()> {
        let pid = stage.daemon().pid();
        until("threads end", || Ok(usage::threads(pid)? <= self.threads))?;
        let allowed = Self {
            resident: self.resident + SLACK,
            ..*self
        };
        let mut now = *self;
        // A connection that has been answered lasts a moment longer.
        let waited = until("it holds no more", || {
            // To be looked at takes a thread, which stays for a while.
            now = Self {
                threads: self.threads,
                ..Self::of(stage)?
            };
            Ok(now.or_more(allowed) == allowed)
        });
        waited.with_context(|| format!("{self:?} became {now:?}"))
    }
}
