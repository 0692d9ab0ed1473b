//! What the eBPF program and the daemon share: the layout of the maps, their limits, and the
//! outcomes that the program counts. No I/O and no policy.
//!
//! Every change of a layout here, or of what a field means, raises [`ABI_VERSION`]: the maps are
//! pinned, so a newer daemon meets what an older one wrote.

#![no_std]

mod outcome;
mod records;
mod table;

pub use outcome::{Cause, OUTCOMES, Outcome, outcome_index};
pub use records::{
    AddressRecord, GroupRecord, InstanceRecord, MigrationRecord, NAME_LEN, PATH_LEN, ServiceRecord,
    SlotRecord,
};
pub use table::{BUCKETS, PROBES, SteeringTable, bucket_of};

/// The version of every layout in this crate, written into each [`ServiceRecord`] and
/// [`GroupRecord`].
pub const ABI_VERSION: u32 = 2;

/// The slot of the parking listener. It is also what an untouched table names everywhere, so that a
/// group without a live listener sends its connections there.
pub const PARKING_SLOT: u32 = 0;

/// The lowest slot that a server's listener can get.
pub const FIRST_SLOT: u32 = 1;

/// How many slots a group has unless its service says otherwise.
pub const DEFAULT_SLOTS: u32 = 1024;

/// How many slots a group can have at most: two generations of 4,096 listeners and the parking
/// slot fit. The tables name a slot in 16 bits.
pub const MAX_SLOTS: u32 = 16_384;

/// Names of the eBPF object's maps and programs, as both sides spell them.
pub mod names {
    /// Slot to listener: `BPF_MAP_TYPE_REUSEPORT_SOCKARRAY`.
    pub const SOCKETS: &str = "SOCKETS";
    /// The two copies of the steering table.
    pub const STEERING: &str = "STEERING";
    /// The one word that says which copy is active.
    pub const ACTIVE: &str = "ACTIVE";
    /// Runs of the program by outcome and cause, per CPU.
    pub const OUTCOMES: &str = "OUTCOMES";
    /// New connections by the slot that was chosen for them, per CPU.
    pub const SELECTED: &str = "SELECTED";
    /// The program for kernels without listener migration (before Linux 5.14).
    pub const SELECT: &str = "select";
    /// The program that also says where a closing listener's connections go (Linux 5.14+).
    pub const SELECT_OR_MIGRATE: &str = "select_or_migrate";
}
