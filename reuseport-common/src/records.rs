//! What the daemon keeps in pinned maps beside the program's own, so that its knowledge lives
//! exactly as long as the sockets that it is about. The program reads none of these.
//!
//! Text is UTF-8, padded with NUL. Numbers are in the machine's byte order: bpffs does not outlive
//! the machine.

/// Room for a name (service, label, device), including at least one NUL.
pub const NAME_LEN: usize = 32;

/// Room for a path, including at least one NUL.
pub const PATH_LEN: usize = 256;

/// An address that a service listens on, as the kernel tells groups apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct AddressRecord {
    /// The address; IPv4 uses the first four bytes.
    pub ip: [u8; 16],
    /// `SO_BINDTODEVICE`, or empty.
    pub device: [u8; NAME_LEN],
    /// The port, in host order.
    pub port: u16,
    /// 4 or 6.
    pub family: u8,
    /// 1 where `IPV6_V6ONLY` is set.
    pub v6only: u8,
}

/// The entry of the `group` map, one per group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct GroupRecord {
    /// [`crate::ABI_VERSION`] of the daemon that made the group's maps.
    pub abi_version: u32,
    /// How many slots the group's maps have.
    pub slots: u32,
    /// Its place among the service's groups.
    pub index: u32,
    /// Zero.
    pub reserved: u32,
    /// Where the group is.
    pub address: AddressRecord,
}

/// The entry of the `service` map, one per service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ServiceRecord {
    /// [`crate::ABI_VERSION`] of the daemon that wrote it.
    pub abi_version: u32,
    /// The uid that owns the service's sockets.
    pub owner: u32,
    /// The generation that the newest instance got, 0 before the first.
    pub generation: u32,
    /// How many slots each group has.
    pub slots: u32,
    /// How long connections wait in the parking listener while nobody serves, in milliseconds; 0
    /// where the service has none.
    pub park_timeout_ms: u64,
    /// The network namespace as the operator named it, or empty for the daemon's own.
    pub netns: [u8; PATH_LEN],
}

/// An entry of the `instances` map, keyed by generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct InstanceRecord {
    /// When the process started, in clock ticks after boot (`/proc/PID/stat`, field 22): tells a
    /// reused pid apart.
    pub start_time: u64,
    /// The process.
    pub pid: u32,
    /// The instance's state, as the daemon's domain numbers it.
    pub state: u32,
    /// What the operator calls it.
    pub label: [u8; NAME_LEN],
}

/// An entry of a group's `slots` map, keyed by slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct SlotRecord {
    /// `SO_COOKIE` of the listener in the slot.
    pub cookie: u64,
    /// The generation of the instance that it belongs to.
    pub generation: u32,
    /// Zero.
    pub reserved: u32,
}

/// The entry of the `migration` map, one per service. All zero when no migration is under way.
/// The instances that it moves away from are the ones whose state says `draining`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct MigrationRecord {
    /// How far it has come, as the daemon's domain numbers it; 0 is none.
    pub phase: u32,
    /// The generation that the service moves to.
    pub to: u32,
    /// How the old queues are emptied, as the daemon's domain numbers it.
    pub drain: u32,
    /// What happens to the old listeners, as the daemon's domain numbers it.
    pub retire: u32,
    /// The signal of `retire`, or 0.
    pub signal: u32,
    /// What `tcp_migrate_req` was before the migration turned it on, to be put back at its end: 1 off,
    /// 2 on, 0 where the migration leaves it alone.
    pub migrate_req: u32,
    /// When the wait for the old queues ends, in milliseconds of `CLOCK_BOOTTIME`.
    pub deadline_ms: u64,
}

#[cfg(feature = "user")]
#[expect(
    unsafe_code,
    reason = "aya asks for this mark on what it copies into a map"
)]
mod pod {
    use super::{GroupRecord, InstanceRecord, MigrationRecord, ServiceRecord, SlotRecord};

    // SAFETY: integers and byte arrays only, laid out by `repr(C)` without padding (checked below).
    unsafe impl aya::Pod for GroupRecord {}
    // SAFETY: as above.
    unsafe impl aya::Pod for ServiceRecord {}
    // SAFETY: as above.
    unsafe impl aya::Pod for InstanceRecord {}
    // SAFETY: as above.
    unsafe impl aya::Pod for SlotRecord {}
    // SAFETY: as above.
    unsafe impl aya::Pod for MigrationRecord {}
}

// A layout with padding would copy uninitialised bytes into the kernel.
const _: () = {
    assert!(size_of::<AddressRecord>() == 16 + NAME_LEN + 4);
    assert!(size_of::<GroupRecord>() == 16 + size_of::<AddressRecord>());
    assert!(size_of::<ServiceRecord>() == 24 + PATH_LEN);
    assert!(size_of::<InstanceRecord>() == 16 + NAME_LEN);
    assert!(size_of::<SlotRecord>() == 16);
    assert!(size_of::<MigrationRecord>() == 32);
};
