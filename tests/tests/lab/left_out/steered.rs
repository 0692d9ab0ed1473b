//! A group that the test steers itself: the daemon's program and tables, in whatever order.

use std::{
    fmt,
    os::fd::{AsFd, BorrowedFd},
};

use anyhow::{Context, Result, ensure};
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

use crate::lab::setup::listeners_of;

/// More than two generations of one listener each.
const SLOTS: u32 = 16;

/// The program of a group, and its maps.
pub(super) struct Steered {
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
    /// Loads that program and no other. Nothing is pinned.
    pub(super) fn load(kind: ProgramKind) -> Result<Self> {
        let (mut ebpf, loaded) = Loader::from_environment(LogLevel::Off)?.load(SLOTS)?;
        if loaded != kind {
            ensure!(kind == ProgramKind::Select, "Linux 5.14 is needed");
            program(&mut ebpf, kind)?.load()?;
        }
        Ok(Self {
            ebpf,
            kind,
            table: Box::new(SteeringTable::EMPTY),
            active: 0,
        })
    }

    /// Puts a server's listener into a slot, and its group under the program.
    pub(super) fn admit(&mut self, slot: Slot, server: &Fixture) -> Result<()> {
        let listeners = listeners_of(server)?;
        listeners
            .iter()
            .try_for_each(|it| self.take_in(slot, it.as_fd()))
    }

    /// The same for a listener of this process.
    pub(super) fn take_in(&mut self, slot: Slot, listener: BorrowedFd<'_>) -> Result<()> {
        let mut sockets = ReusePortSockArray::try_from(self.map(names::SOCKETS)?)?;
        sockets.set(u32::from(slot.0), &listener, 0)?;
        Ok(program(&mut self.ebpf, self.kind)?.attach(listener)?)
    }

    /// Makes every connection from now on go to a slot.
    pub(super) fn switch_to(&mut self, slot: Slot) -> Result<()> {
        *self.table = share(&self.table, &[slot]);
        let table = *self.table;
        self.active = 1 - self.active;
        let active = self.active;
        let mut steering: Array<_, SteeringTable> = self.map(names::STEERING)?.try_into()?;
        steering.set(active, table, 0)?;
        let mut word: Array<_, u32> = self.map(names::ACTIVE)?.try_into()?;
        Ok(word.set(0, active, 0)?)
    }

    fn map(&mut self, name: &'static str) -> Result<&mut Map> {
        self.ebpf.map_mut(name).context(name)
    }
}

fn program(ebpf: &mut Ebpf, kind: ProgramKind) -> Result<&mut SkReuseport> {
    let program = ebpf.program_mut(kind.as_str()).context(kind.as_str())?;
    Ok(program.try_into()?)
}
