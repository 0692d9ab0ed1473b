//! One group's program and maps.

use std::{
    collections::BTreeMap,
    fmt,
    os::fd::BorrowedFd,
    path::Path,
    sync::atomic::{Ordering, fence},
};

use aya::{
    maps::{Array, HashMap, MapData, MapError, PerCpuArray, PerCpuValues, ReusePortSockArray},
    programs::SkReuseport,
    util::nr_cpus,
};
use reuseport_common::{GroupRecord, PARKING_SLOT, SlotRecord, SteeringTable, names};

use super::{
    Loader, ProgramKind, Runs, SteeringError,
    maps::{self, NO_PREALLOC, check_abi, fine_if_absent, wrap},
    object, program,
    records::{address_of, group_record, listener_of, slot_record},
    runs::sum,
};
use crate::domain::{Address, Generation, Group, Listener, Parking, Slot, SocketCookie, TableCopy};

/// `BPF_NOEXIST`: a slot that is taken is an error, not overwritten.
const NO_EXIST: u64 = 1;

/// The generation of no instance: the first gets 1. The next start clears what is recorded as its.
const NOBODY: Generation = Generation(0);

const GROUP: &str = "group";
const SLOTS: &str = "slots";

/// A group's program and maps.
pub struct GroupMaps {
    sockets: ReusePortSockArray<MapData>,
    steering: Array<MapData, SteeringTable>,
    active: Array<MapData, u32>,
    outcomes: PerCpuArray<MapData, u64>,
    selected: PerCpuArray<MapData, u64>,
    slots: HashMap<MapData, u32, SlotRecord>,
    pub(super) program: SkReuseport,
    pub(super) kind: ProgramKind,
}

impl fmt::Debug for GroupMaps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupMaps")
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

impl GroupMaps {
    /// Loads a program and its maps and pins them in `directory`, which exists and is empty.
    pub(super) fn create(
        loader: &Loader,
        directory: &Path,
        address: &Address,
        index: usize,
        slots: u32,
    ) -> Result<(), SteeringError> {
        let (mut ebpf, kind) = loader.load(slots)?;
        for (name, pin) in object::MAPS {
            let path = directory.join(pin);
            ebpf.map(name)
                .ok_or(SteeringError::Lacks(name))?
                .pin(&path)
                .map_err(|source| SteeringError::Pin { path, source })?;
        }
        let path = directory.join(kind.as_str());
        object::program(&mut ebpf, kind)?
            .pin(&path)
            .map_err(|source| SteeringError::Pin { path, source })?;

        let path = directory.join(SLOTS);
        HashMap::<_, u32, SlotRecord>::create(slots, NO_PREALLOC)
            .map_err(wrap("create", SLOTS))?
            .pin(&path)
            .map_err(|source| SteeringError::Pin { path, source })?;

        let path = directory.join(GROUP);
        let record =
            group_record(address, index, slots).map_err(|source| SteeringError::Record {
                path: path.clone(),
                source,
            })?;
        let mut group = Array::<_, GroupRecord>::create(1, 0).map_err(wrap("create", GROUP))?;
        group.set(0, record, 0).map_err(wrap("write", GROUP))?;
        group
            .pin(&path)
            .map_err(|source| SteeringError::Pin { path, source })
    }

    /// Opens what is pinned in `directory`, and reads what it says of the group and of its place
    /// among the service's groups.
    pub(super) fn open(directory: &Path) -> Result<(Self, Group, u32), SteeringError> {
        let path = directory.join(GROUP);
        let record: Array<_, GroupRecord> = maps::open(&path)?;
        let record = record.get(&0, 0).map_err(wrap("read", GROUP))?;
        check_abi(&path, record.abi_version)?;
        let address =
            address_of(&record.address).map_err(|source| SteeringError::Record { path, source })?;

        let [sockets, steering, active, outcomes, selected] =
            object::MAPS.map(|(_, pin)| directory.join(pin));
        let (program, kind) = program::open(directory)?;
        let maps = Self {
            sockets: maps::open(&sockets)?,
            steering: maps::open(&steering)?,
            active: maps::open(&active)?,
            outcomes: maps::open(&outcomes)?,
            selected: maps::open(&selected)?,
            slots: maps::open(&directory.join(SLOTS))?,
            program,
            kind,
        };
        let group = maps.read(address)?;
        Ok((maps, group, record.index))
    }

    fn read(&self, address: Address) -> Result<Group, SteeringError> {
        let active = self
            .active
            .get(&0, 0)
            .map_err(wrap("read", names::ACTIVE))?;
        let active = if active == TableCopy::Second.index() {
            TableCopy::Second
        } else {
            TableCopy::First
        };
        let table = self
            .steering
            .get(&active.index(), 0)
            .map_err(wrap("read", names::STEERING))?;
        let mut group = Group {
            address,
            slots: BTreeMap::new(),
            active,
            table: Box::new(table),
            parking: Parking::Closed,
        };
        for entry in &self.slots {
            let (slot, record) = entry.map_err(wrap("read", SLOTS))?;
            if let Ok(slot) = u16::try_from(slot) {
                group.slots.insert(Slot(slot), listener_of(&record));
            }
        }
        Ok(group)
    }

    /// Which program it runs.
    #[must_use]
    pub fn kind(&self) -> ProgramKind {
        self.kind
    }

    /// The kernel's number of the program, by which its log can be found.
    ///
    /// # Errors
    ///
    /// Where the kernel does not tell.
    pub fn program_id(&self) -> Result<u32, SteeringError> {
        let info = self.program.info().map_err(SteeringError::Attach)?;
        Ok(info.id())
    }

    /// Puts a listener into a slot, and writes the slot's record. Where that fails, part of it may have
    /// been done: the slot is to be cleared.
    ///
    /// # Errors
    ///
    /// `EEXIST` where the slot is taken, `EBUSY` where the listener has another one, `EINVAL` where
    /// it is in no reuseport group.
    pub fn insert(
        &mut self,
        slot: Slot,
        listener: Listener,
        socket: BorrowedFd<'_>,
    ) -> Result<(), SteeringError> {
        // A record first: a slot without one would be nobody's to clear. It names no instance as yet,
        // since a slot that is an instance's is steered to at the next start, listener or no.
        self.record(slot, listener.cookie, NOBODY)?;
        // Before the listener is there to be chosen: the slot may have had another one.
        self.forget_count(slot)?;
        self.sockets
            .set(u32::from(slot.0), &socket, NO_EXIST)
            .map_err(wrap("put a listener into", names::SOCKETS))?;
        self.record(slot, listener.cookie, listener.generation)
    }

    fn record(
        &mut self,
        slot: Slot,
        cookie: SocketCookie,
        generation: Generation,
    ) -> Result<(), SteeringError> {
        let record = slot_record(Listener { cookie, generation });
        self.slots
            .insert(u32::from(slot.0), record, 0)
            .map_err(wrap("write", SLOTS))
    }

    fn forget_count(&mut self, slot: Slot) -> Result<(), SteeringError> {
        let zeros = nr_cpus()
            .map_err(|(_, source)| source)
            .and_then(|cpus| PerCpuValues::try_from(vec![0; cpus]))
            .map_err(MapError::from);
        zeros
            .and_then(|zeros| self.selected.set(u32::from(slot.0), zeros, 0))
            .map_err(wrap("write", names::SELECTED))
    }

    /// Empties a slot and forgets its record. An empty one is fine.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses.
    pub fn clear(&mut self, slot: Slot) -> Result<(), SteeringError> {
        let slot = u32::from(slot.0);
        fine_if_absent(self.sockets.clear_index(&slot)).map_err(wrap("clear", names::SOCKETS))?;
        fine_if_absent(self.slots.remove(&slot)).map_err(wrap("clear", SLOTS))
    }

    /// Writes a copy of the steering table, which must not be the active one.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses.
    pub fn write_table(
        &mut self,
        copy: TableCopy,
        table: &SteeringTable,
    ) -> Result<(), SteeringError> {
        self.steering
            .set(copy.index(), table, 0)
            .map_err(wrap("write", names::STEERING))
    }

    /// Makes a copy the active one. The word is 0 or 1, so that its change is one byte's, however
    /// the kernel copies it.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses.
    pub fn flip(&mut self, copy: TableCopy) -> Result<(), SteeringError> {
        // The program reads the word first and then the table that it names. A CPU that reorders
        // stores must not show it the word before the table, and two system calls alone don't say so.
        fence(Ordering::SeqCst);
        self.active
            .set(0, copy.index(), 0)
            .map_err(wrap("write", names::ACTIVE))
    }

    /// Lets the group of `socket` be steered. Replaces whatever program the group has.
    ///
    /// # Errors
    ///
    /// `EINVAL` where the socket is in no group.
    pub fn attach(&self, socket: BorrowedFd<'_>) -> Result<(), SteeringError> {
        self.program.attach(socket).map_err(SteeringError::Attach)
    }

    /// Gives a parking listener its slot, in place of the one that has it, and lets its group be
    /// steered. The slot comes first: a program that finds it empty leaves the choice to the kernel.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses.
    pub fn park(&mut self, socket: BorrowedFd<'_>) -> Result<(), SteeringError> {
        self.sockets
            .set(PARKING_SLOT, &socket, 0)
            .map_err(wrap("put a listener into", names::SOCKETS))?;
        self.attach(socket)
    }

    /// Leaves the group of `socket` to the kernel's hash again. A group without a program is fine.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses (before Linux 5.3 it cannot).
    pub fn detach(socket: BorrowedFd<'_>) -> Result<(), SteeringError> {
        match SkReuseport::detach(socket).map_err(SteeringError::Attach) {
            Err(error)
                if error.io_error().and_then(std::io::Error::raw_os_error)
                    == Some(libc::ENOENT) =>
            {
                Ok(())
            }
            result => result,
        }
    }

    /// How often the program ran since it was loaded.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses.
    pub fn runs(&self) -> Result<Runs, SteeringError> {
        Runs::read(&self.outcomes)
    }

    /// How many new connections were steered to a slot since its listener was put there.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses.
    pub fn selected(&self, slot: Slot) -> Result<u64, SteeringError> {
        sum(&self.selected, u32::from(slot.0), names::SELECTED)
    }
}
