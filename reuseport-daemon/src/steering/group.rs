//! One group's program and maps.

use std::{
    borrow::Borrow,
    collections::BTreeMap,
    fmt,
    os::fd::BorrowedFd,
    path::{Path, PathBuf},
};

use aya::{
    Pod,
    maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, ReusePortSockArray},
    programs::{ProgramError, SkReuseport, sk_reuseport::SkReuseportAttachType},
};
use reuseport_common::{
    ABI_VERSION, Cause, GroupRecord, Outcome, SlotRecord, SteeringTable, names, outcome_index,
};

use super::{
    Loader, SteeringError, object,
    records::{address_of, group_record, listener_of, slot_record},
};
use crate::domain::{Address, Group, Listener, Slot, TableCopy};

/// `BPF_NOEXIST`: a slot that is taken is an error, not overwritten.
const NO_EXIST: u64 = 1;
/// `BPF_F_NO_PREALLOC`: a record takes memory when it is written.
const NO_PREALLOC: u32 = 1;

const GROUP: &str = "group";
const SLOTS: &str = "slots";
/// The maps of the object, and the names of their pins.
const OBJECT_MAPS: [(&str, &str); 5] = [
    (names::SOCKETS, "sockets"),
    (names::STEERING, "steering"),
    (names::ACTIVE, "active"),
    (names::OUTCOMES, "outcomes"),
    (names::SELECTED, "selected"),
];

/// Which of the two programs a group runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgramKind {
    /// The one for kernels without listener migration.
    Select,
    /// The one that also says where a closing listener's connections go (Linux 5.14+).
    SelectOrMigrate,
}

impl ProgramKind {
    /// The program's name, in the object and as a pin.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Select => names::SELECT,
            Self::SelectOrMigrate => names::SELECT_OR_MIGRATE,
        }
    }

    fn attach_type(self) -> SkReuseportAttachType {
        match self {
            Self::Select => SkReuseportAttachType::Select,
            Self::SelectOrMigrate => SkReuseportAttachType::SelectOrMigrate,
        }
    }
}

/// How often a group's program ran, by outcome and cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Runs([[u64; Outcome::ALL.len()]; Cause::ALL.len()]);

impl Runs {
    /// What a program's counters say.
    pub(super) fn read(
        counters: &PerCpuArray<impl Borrow<MapData>, u64>,
    ) -> Result<Self, SteeringError> {
        let mut runs = Self::default();
        for cause in Cause::ALL {
            for outcome in Outcome::ALL {
                let index = outcome_index(outcome, cause);
                runs.0[cause as usize][outcome as usize] = sum(counters, index, names::OUTCOMES)?;
            }
        }
        Ok(runs)
    }

    /// So many runs of one kind, for tests.
    #[cfg(test)]
    pub(crate) fn once(outcome: Outcome, cause: Cause, count: u64) -> Self {
        let mut runs = Self::default();
        runs.0[cause as usize][outcome as usize] = count;
        runs
    }

    /// Runs of one kind.
    #[must_use]
    pub fn of(&self, outcome: Outcome, cause: Cause) -> u64 {
        self.0[cause as usize][outcome as usize]
    }

    /// The sum of two.
    #[must_use]
    pub fn plus(mut self, other: &Self) -> Self {
        for (row, theirs) in self.0.iter_mut().zip(other.0) {
            for (count, their) in row.iter_mut().zip(theirs) {
                *count += their;
            }
        }
        self
    }

    /// What has come since `earlier`.
    #[must_use]
    pub fn since(mut self, earlier: &Self) -> Self {
        for (row, theirs) in self.0.iter_mut().zip(earlier.0) {
            for (count, their) in row.iter_mut().zip(theirs) {
                *count = count.saturating_sub(their);
            }
        }
        self
    }
}

/// A group's program and maps.
pub struct GroupMaps {
    sockets: ReusePortSockArray<MapData>,
    steering: Array<MapData, SteeringTable>,
    active: Array<MapData, u32>,
    outcomes: PerCpuArray<MapData, u64>,
    selected: PerCpuArray<MapData, u64>,
    slots: HashMap<MapData, u32, SlotRecord>,
    program: SkReuseport,
    kind: ProgramKind,
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
        for (name, pin) in OBJECT_MAPS {
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
        let record: Array<_, GroupRecord> = open_map(&path)?;
        let record = record.get(&0, 0).map_err(wrap("read", GROUP))?;
        check_abi(&path, record.abi_version)?;
        let address =
            address_of(&record.address).map_err(|source| SteeringError::Record { path, source })?;

        let [sockets, steering, active, outcomes, selected] =
            OBJECT_MAPS.map(|(_, pin)| directory.join(pin));
        let (program, kind) = open_program(directory)?;
        let maps = Self {
            sockets: open_map(&sockets)?,
            steering: open_map(&steering)?,
            active: open_map(&active)?,
            outcomes: open_map(&outcomes)?,
            selected: open_map(&selected)?,
            slots: open_map(&directory.join(SLOTS))?,
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

    /// Puts a listener into a slot, and writes the slot's record.
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
        // The record first: a slot without a record would be nobody's to clear.
        self.slots
            .insert(u32::from(slot.0), slot_record(listener), 0)
            .map_err(wrap("write", SLOTS))?;
        self.sockets
            .set(u32::from(slot.0), &socket, NO_EXIST)
            .map_err(wrap("put a listener into", names::SOCKETS))
            .inspect_err(|_| {
                // The error to report is the first one.
                let _ = self.slots.remove(&u32::from(slot.0));
            })
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

    /// How often the program chose a slot since it was loaded.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses.
    pub fn selected(&self, slot: Slot) -> Result<u64, SteeringError> {
        sum(&self.selected, u32::from(slot.0), names::SELECTED)
    }
}

fn sum(
    counters: &PerCpuArray<impl Borrow<MapData>, u64>,
    index: u32,
    map: &'static str,
) -> Result<u64, SteeringError> {
    let per_cpu = counters.get(&index, 0).map_err(wrap("read", map))?;
    Ok(per_cpu.iter().sum())
}

fn open_program(directory: &Path) -> Result<(SkReuseport, ProgramKind), SteeringError> {
    let migrating = directory.join(ProgramKind::SelectOrMigrate.as_str());
    let (path, kind) = if migrating.exists() {
        (migrating, ProgramKind::SelectOrMigrate)
    } else {
        let path = directory.join(ProgramKind::Select.as_str());
        (path, ProgramKind::Select)
    };
    let program = SkReuseport::from_pin(&path, kind.attach_type())
        .map_err(|source: ProgramError| SteeringError::OpenProgram { path, source })?;
    Ok((program, kind))
}

/// Opens a pinned map as the type that it should have.
pub(super) fn open_map<M>(path: &Path) -> Result<M, SteeringError>
where
    M: TryFrom<Map, Error = MapError>,
{
    MapData::from_pin(path)
        .and_then(Map::from_map_data)
        .and_then(M::try_from)
        .map_err(|source| SteeringError::OpenMap {
            path: path.to_owned(),
            source,
        })
}

/// Makes a map of one entry, writes it and pins it.
pub(super) fn create_record<R: Pod>(
    path: PathBuf,
    name: &'static str,
    record: R,
) -> Result<(), SteeringError> {
    let mut map = Array::<_, R>::create(1, 0).map_err(wrap("create", name))?;
    map.set(0, record, 0).map_err(wrap("write", name))?;
    map.pin(&path)
        .map_err(|source| SteeringError::Pin { path, source })
}

pub(super) fn check_abi(path: &Path, found: u32) -> Result<(), SteeringError> {
    if found == ABI_VERSION {
        return Ok(());
    }
    Err(SteeringError::Abi {
        path: path.to_owned(),
        found,
        expected: ABI_VERSION,
    })
}

pub(super) fn wrap(
    verb: &'static str,
    map: &'static str,
) -> impl FnOnce(MapError) -> SteeringError {
    move |source| SteeringError::Map { verb, map, source }
}

pub(super) fn fine_if_absent(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::SyscallError(error))
            if error.io_error.raw_os_error() == Some(libc::ENOENT) =>
        {
            Ok(())
        }
        other => other,
    }
}
