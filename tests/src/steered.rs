//! A group that the test steers itself: the daemon's program and tables, in whatever order.

use std::{
    fmt,
    os::fd::{AsFd, BorrowedFd},
};

use anyhow::{Context, Result, bail, ensure};
use aya::{
    Ebpf,
    maps::{Array, Map, ReusePortSockArray},
    programs::SkReuseport,
};
use reuseport_common::{SteeringTable, names};
use reuseport_daemon::{
    domain::{Slot, share},
    lab::fixture::Fixture,
    steering::{Loader, LogLevel, ProgramKind},
};

use crate::sockets::listeners_of;

/// More than two generations of one listener each.
const SLOTS: u32 = 16;

/// The program of a group, and its maps.
pub struct Steered {
    ebpf: Ebpf,
    kind: ProgramKind,
    table: Box<SteeringTable>,
    active: u32,
}

impl fmt::Debug for Steered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Steered")
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

impl Steered {
    /// Loads that program and no other, for a few listeners. Nothing is pinned.
    ///
    /// # Errors
    ///
    /// Where the kernel takes another one, or none.
    pub fn load(kind: ProgramKind) -> Result<Self> {
        let (mut ebpf, loaded) = Loader::from_environment(LogLevel::Off)?.load(SLOTS)?;
        if loaded != kind {
            ensure!(kind == ProgramKind::Select, "Linux 5.14 is needed");
            program(&mut ebpf, kind)?.load()?;
        }
        Ok(Self::with(ebpf, kind))
    }

    /// Loads the program that a service would have, with so many slots. Nothing is pinned.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses.
    pub fn load_best(slots: u32) -> Result<Self> {
        let (ebpf, kind) = Loader::from_environment(LogLevel::Off)?.load(slots)?;
        Ok(Self::with(ebpf, kind))
    }

    fn with(ebpf: Ebpf, kind: ProgramKind) -> Self {
        Self {
            ebpf,
            kind,
            table: Box::new(SteeringTable::EMPTY),
            active: 0,
        }
    }

    /// Puts a server's listener into a slot, and its group under the program.
    ///
    /// # Errors
    ///
    /// Where the server is gone, or the kernel refuses.
    pub fn admit(&mut self, slot: Slot, server: &Fixture) -> Result<()> {
        let listeners = listeners_of(server)?;
        listeners
            .iter()
            .try_for_each(|it| self.take_in(slot, it.as_fd()))
    }

    /// The same for a listener of this process.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses.
    pub fn take_in(&mut self, slot: Slot, listener: BorrowedFd<'_>) -> Result<()> {
        let mut sockets = ReusePortSockArray::try_from(self.map(names::SOCKETS)?)?;
        sockets.set(u32::from(slot.0), &listener, 0)?;
        self.attach(listener)
    }

    /// Puts the group of a listener under the program.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses.
    pub fn attach(&mut self, listener: BorrowedFd<'_>) -> Result<()> {
        Ok(program(&mut self.ebpf, self.kind)?.attach(listener)?)
    }

    /// Makes every connection from now on go to a slot.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses.
    pub fn switch_to(&mut self, slot: Slot) -> Result<()> {
        self.share_among(&[slot])
    }

    /// Shares the connections from now on among slots.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses.
    pub fn share_among(&mut self, slots: &[Slot]) -> Result<()> {
        *self.table = share(&self.table, slots);
        let table = *self.table;
        self.active = 1 - self.active;
        let active = self.active;
        let mut steering: Array<_, SteeringTable> = self.map(names::STEERING)?.try_into()?;
        steering.set(active, table, 0)?;
        let mut word: Array<_, u32> = self.map(names::ACTIVE)?.try_into()?;
        Ok(word.set(0, active, 0)?)
    }

    /// The program.
    ///
    /// # Errors
    ///
    /// Where it is not loaded.
    pub fn program(&mut self) -> Result<BorrowedFd<'_>> {
        Ok(program(&mut self.ebpf, self.kind)?.fd()?.as_fd())
    }

    /// The map that its listeners are in.
    ///
    /// # Errors
    ///
    /// Where the object lacks it.
    pub fn sockets(&mut self) -> Result<BorrowedFd<'_>> {
        let Map::ReusePortSockArray(map) = self.map(names::SOCKETS)? else {
            bail!("{} is no array of sockets", names::SOCKETS);
        };
        Ok(map.fd().as_fd())
    }

    fn map(&mut self, name: &'static str) -> Result<&mut Map> {
        self.ebpf.map_mut(name).context(name)
    }
}

fn program(ebpf: &mut Ebpf, kind: ProgramKind) -> Result<&mut SkReuseport> {
    let program = ebpf.program_mut(kind.as_str()).context(kind.as_str())?;
    Ok(program.try_into()?)
}
