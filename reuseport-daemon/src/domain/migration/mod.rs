//! Moving a service from the instances that serve it to another one.
//!
//! ```text
//!              flip            grace over         none half-open       grace over
//!   Staged ──────────> Switched ───────> Handshakes ──────> Settling ─────────> Queues
//!     │                   │                  │                 │                  │ all empty
//!     │                   │ rollback, or the new instance ends │                  v
//!     └───────────────────┴──────────┬───────┴─────────────────┘               Retiring ──> done
//!                                    v                                            ^
//!                               rolled back         the old instances end ────────┘
//!
//!   Queues ── a handshake after all ──> Handshakes
//!   Handshakes, Queues ── the new instance listens no more ──> rolled back
//!   Handshakes, Settling, Queues ── deadline ──> timed out (the old instances keep draining)
//!   any ── the new instance ends, nobody to go back to ──> failed
//!   Switched ── deadline, no grace period to be had ──> timed out
//! ```
//!
//! Where the kernel drains there are no Queues: shutting the old listeners down, which is then part
//! of Retiring, makes it move what they hold.
//!
//! ```text
//!   Settling ── grace over ──> Retiring
//!   Handshakes, Settling ── deadline ──> Retiring (the kernel moves what is half-open, too)
//! ```
//!
//! Handshakes, Settling and Queues together are what `status` calls draining. The order is the
//! promise: nothing old is touched before a grace period has passed since the flip, every handshake
//! seen after it has ended, one more grace period has passed, and every old queue has read empty.
//! The second grace period is for the handshake that ended while it was looked at: the kernel takes it
//! out of the table before it puts its child in and queues that, all within one RCU read-side section
//! (`inet_ehash_insert`,
//! <https://elixir.bootlin.com/linux/v6.18/source/net/ipv4/inet_hashtables.c>). docs/zero-loss.md has
//! the whole argument.

mod advance;
mod closed;
mod end;
mod process;
mod resume;
mod start;
#[cfg(test)]
mod tests;

use std::time::Duration;

use super::{Effect, Generation, Service};

pub use advance::advance;
pub use closed::listeners_closed;
pub use end::roll_back;
pub use process::process_ended;
pub use resume::resume;
pub use start::{Start, migrate, origin};

/// How a migration is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How the old accept queues are emptied.
    pub drain: Drain,
    /// What happens to the old listeners when they are empty.
    pub retire: Retire,
    /// When the wait for them ends, in milliseconds of `CLOCK_BOOTTIME`.
    pub deadline_ms: u64,
    /// What `tcp_migrate_req` was before, where the migration holds it on until its end.
    pub migrate_req: Option<bool>,
}

impl Options {
    /// Whether the old listeners are shut down when they are retired.
    #[must_use]
    pub fn closes_listeners(self) -> bool {
        self.drain == Drain::Kernel || self.retire == Retire::Shutdown
    }

    /// Turns `tcp_migrate_req` on, if the migration is to do so.
    fn hold_migrate_req(self) -> Option<Effect> {
        let was = self.migrate_req?;
        Some(Effect::HoldMigrateReq { was })
    }

    /// Puts it back.
    fn release_migrate_req(self) -> Option<Effect> {
        let was = self.migrate_req?;
        Some(Effect::ReleaseMigrateReq { was })
    }
}

/// How the old accept queues are emptied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Drain {
    /// The old server keeps accepting, as it always did.
    #[default]
    Owner,
    /// Their listeners are shut down, and the kernel moves what they hold to the new instance. It
    /// takes a program that says where migrating connections go (Linux 5.14).
    Kernel,
    /// The daemon accepts, and hands each connection to the new instance, which has to receive them.
    Handoff,
}

/// What happens to the old listeners when they are empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Retire {
    /// They stay open and out of reach; the old server closes them when it exits.
    #[default]
    Keep,
    /// `shutdown(2)`, which closes them for whoever holds them. The old server's `accept` then
    /// fails with `EINVAL`.
    Shutdown,
    /// The old process gets this signal.
    Signal(u32),
}

/// A migration that is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migration {
    /// The instances to go back to: those that served, or whoever is being drained still after an
    /// earlier migration to the same instance whose time ran out. Everything in state draining is
    /// waited for.
    pub from: Vec<Generation>,
    /// The instance that takes over.
    pub to: Generation,
    /// How it is done.
    pub options: Options,
    /// How far it has come.
    pub phase: Phase,
    /// What there is to wait for, once a snapshot has told.
    pub tally: Option<Tally>,
}

impl Migration {
    /// Whether one of the instances to go back to is still there.
    fn can_go_back(&self, service: &Service) -> bool {
        self.from.iter().any(|it| service.lives(*it))
    }
}

/// How far a migration has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Decided and recorded; the old tables are active.
    Staged,
    /// The new tables are active; packets that saw the old ones may still be under way.
    Switched,
    /// Half-open handshakes of the old listeners are waited for.
    Handshakes {
        /// The next pause between readings.
        pause: Duration,
    },
    /// The last of them may be on its way into an accept queue.
    Settling,
    /// The old accept queues are waited for.
    Queues {
        /// The next pause between readings.
        pause: Duration,
    },
    /// The old listeners are empty and being retired.
    Retiring,
}

impl Phase {
    /// The word in `status` and in the progress of `migrate`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Staged => "staged",
            Self::Switched => "switched",
            Self::Handshakes { .. } | Self::Settling | Self::Queues { .. } => "draining",
            Self::Retiring => "retiring",
        }
    }
}

/// What the old listeners had when it was first looked at, and what they have left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Half-open handshakes in the snapshot.
    pub handshakes: u64,
    /// Connections in the accept queues at the snapshot.
    pub queued: u64,
    /// How many of either kind the last reading found.
    pub left: u64,
}

impl Tally {
    /// How many of those found at first have been accepted by their owner, or given up by their
    /// client.
    #[must_use]
    pub fn taken(self) -> u64 {
        (self.handshakes + self.queued).saturating_sub(self.left)
    }
}

/// What was found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observation {
    /// The grace period has passed.
    GraceOver,
    /// The snapshot, or a reading of it later on.
    Reading {
        /// Handshakes of the snapshot that are still half-open.
        handshakes: u64,
        /// Connections in the old accept queues.
        queued: u64,
    },
    /// The new instance lives, and has no listener at one of the service's addresses any more, or so
    /// few that connections would not find them.
    /// Reported after a pause, since it is looked at again where there is no going back.
    Deaf,
    /// The old listeners are retired.
    Retired,
    /// The old listeners could not all be retired.
    NotRetired,
    /// It could not be looked at this time. Reported after a pause, since it is tried again.
    Missed,
}

/// How a migration ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The new instance serves and the old listeners are retired.
    Done,
    /// The old instances serve again.
    RolledBack,
    /// The new instance serves; the old listeners were not empty when the time was up, and stay.
    TimedOut,
    /// The new instance serves; the old listeners are empty and could not all be retired. The same
    /// migration again tries it again.
    NotRetired,
    /// The new instance has ended, and it was too late to go back, or there was nobody to go back
    /// to. Whoever else listened serves.
    Failed,
}
