//! What became of one run of the program.

/// How the program chose. Every run ends in exactly one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Outcome {
    /// The slot that the table names.
    Selected = 0,
    /// That slot was empty; one of the next buckets had a live one.
    Probed = 1,
    /// No live slot was found; the parking listener took it.
    Parked = 2,
    /// Nothing was chosen: the kernel hashed over the group's live listeners.
    Kernel = 3,
}

impl Outcome {
    /// Every outcome, in the order of the counters.
    pub const ALL: [Self; 4] = [Self::Selected, Self::Probed, Self::Parked, Self::Kernel];
}

/// Why the program ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Cause {
    /// A SYN: a connection begins.
    New = 0,
    /// A listener closed and the kernel asks where its connection goes (Linux 5.14+).
    Migrating = 1,
    /// Another packet that belongs to no connection: one that came late, such as a second reset, or
    /// the ACK that brings a SYN cookie back and makes the connection whose SYN was counted as new.
    Stray = 2,
}

impl Cause {
    /// Every cause, in the order of the counters.
    pub const ALL: [Self; 3] = [Self::New, Self::Migrating, Self::Stray];
}

/// How many counters the `OUTCOMES` map has.
pub const OUTCOMES: u32 = 12;

/// The index in the `OUTCOMES` map.
#[inline]
#[must_use]
pub const fn outcome_index(outcome: Outcome, cause: Cause) -> u32 {
    cause as u32 * 4 + outcome as u32
}
