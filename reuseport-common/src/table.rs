//! The steering table: hash bucket to slot.

/// How many buckets a table has: a service of 4,096 listeners still gives every one its share.
pub const BUCKETS: usize = 4096;

/// How many buckets after the first one are tried when a slot turns out to be empty.
pub const PROBES: usize = 4;

/// One copy of the steering table. A group has two; the `ACTIVE` word says which one the program
/// reads, and only the other one is ever written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct SteeringTable {
    /// The slot that each bucket goes to.
    pub slots: [u16; BUCKETS],
}

impl SteeringTable {
    /// The table of a group without a live listener: everything goes to the parking slot.
    #[expect(clippy::cast_possible_truncation, reason = "slot 0 fits")]
    pub const EMPTY: Self = Self {
        slots: [crate::PARKING_SLOT as u16; BUCKETS],
    };
}

/// The bucket of a connection's hash: the hash's upper bits, which spreads evenly for any number
/// of buckets and needs no division.
#[inline]
#[must_use]
pub const fn bucket_of(hash: u32) -> usize {
    ((hash as u64 * BUCKETS as u64) >> 32) as usize
}

#[cfg(feature = "user")]
#[expect(
    unsafe_code,
    reason = "aya asks for this mark on what it copies into a map"
)]
// SAFETY: an array of u16, so no padding and every bit pattern is valid.
unsafe impl aya::Pod for SteeringTable {}
