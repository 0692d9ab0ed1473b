//! What a decision asks to be done. The driver performs effects one after the other; the domain
//! never does.

use std::time::Duration;

use reuseport_common::SteeringTable;

use super::{
    End, Generation, Instance, Migration, Options, Service, Slot, SocketCookie, TableCopy,
    group::Listener,
};

/// A decision: what to do, in this order, and what is true of the service when it has been done.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// To be performed in this order; where one fails, the ones before it are undone.
    pub effects: Vec<Effect>,
    /// The service afterwards.
    pub next: Service,
    /// What to watch for then. None leaves whatever a migration under way waits for as it is; the
    /// end of the migration ends the wait.
    pub wait: Option<Wait>,
    /// The migration that this ends, and how.
    pub end: Option<(Migration, End)>,
}

impl Decision {
    /// Nothing to do.
    #[must_use]
    pub fn unchanged(service: &Service) -> Self {
        Self {
            effects: Vec::new(),
            next: service.clone(),
            wait: None,
            end: None,
        }
    }

    /// This decision and the one that follows from what it leads to, as one.
    #[must_use]
    pub(super) fn then(mut self, decide: impl FnOnce(&Service) -> Self) -> Self {
        let mut second = decide(&self.next);
        self.effects.append(&mut second.effects);
        second.effects = self.effects;
        second
    }
}

/// One change of the world outside, to one service. `group` is an index of [`Service::groups`].
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Put a listener into its slot and write the slot's record. Fails where the slot is taken.
    Insert {
        /// The group.
        group: usize,
        /// The slot.
        slot: Slot,
        /// What goes there.
        listener: Listener,
    },
    /// Empty a slot and forget its record. An empty slot is fine.
    Clear {
        /// The group.
        group: usize,
        /// The slot.
        slot: Slot,
    },
    /// Write an instance's record, and watch its process.
    RecordInstance {
        /// Which.
        generation: Generation,
        /// What it is.
        instance: Instance,
    },
    /// Forget an instance's record, and watch its process no more.
    ForgetInstance(Generation),
    /// Write the service's newest generation.
    RecordGeneration(Generation),
    /// Write the migration that is under way, or that there is none.
    RecordMigration(Option<Migration>),
    /// Turn `tcp_migrate_req` on in the service's network namespace until it is released.
    HoldMigrateReq {
        /// What it was before any service there held it.
        was: bool,
    },
    /// Put `tcp_migrate_req` back, unless another service there holds it still.
    ReleaseMigrateReq {
        /// What it was before any service there held it.
        was: bool,
    },
    /// Write the steering table that the program does not read.
    WriteTable {
        /// The group.
        group: usize,
        /// The copy that is not active.
        copy: TableCopy,
        /// What it shall say.
        table: Box<SteeringTable>,
    },
    /// Make a steering table the active one: the one word.
    Flip {
        /// The group.
        group: usize,
        /// The copy that becomes active.
        copy: TableCopy,
    },
    /// Attach the program to the group, through one of its listeners.
    Attach {
        /// The group.
        group: usize,
        /// The listener to attach through.
        cookie: SocketCookie,
    },
    /// Open a parking listener, attach the program through it, and give it the parking slot.
    OpenParking {
        /// The group.
        group: usize,
    },
    /// The same, in place of the one that is there, which is closed as soon as no packet is on its
    /// way to it any more.
    RotateParking {
        /// The group.
        group: usize,
    },
    /// Close the parking listener, with whatever waits in it.
    CloseParking {
        /// The group.
        group: usize,
    },
}

/// What a migration waits for. Each leads to one [`super::Observation`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// An RCU grace period, after which no packet is being processed by what it read before.
    Grace,
    /// A snapshot of the half-open handshakes, at once.
    Snapshot,
    /// A reading of the snapshot's remainder and of the old accept queues.
    Reading {
        /// How long to wait before it.
        after: Duration,
    },
    /// The draining instances' listeners to be retired, as these say.
    Retirement(Options),
}

impl Effect {
    /// What takes the effect back, given the service as it was before the decision. None where
    /// there is nothing to take back: a table that is not active, a parking listener in place of
    /// another one, or a step beyond which no decision can fail.
    #[must_use]
    pub fn undo(&self, before: &Service) -> Option<Self> {
        match self {
            Self::Insert { group, slot, .. } => Some(Self::Clear {
                group: *group,
                slot: *slot,
            }),
            Self::RecordInstance { generation, .. } => {
                Some(match before.instances.get(generation) {
                    Some(instance) => Self::RecordInstance {
                        generation: *generation,
                        instance: instance.clone(),
                    },
                    None => Self::ForgetInstance(*generation),
                })
            }
            Self::ForgetInstance(generation) => {
                before
                    .instances
                    .get(generation)
                    .map(|instance| Self::RecordInstance {
                        generation: *generation,
                        instance: instance.clone(),
                    })
            }
            Self::RecordGeneration(_) => Some(Self::RecordGeneration(before.newest)),
            Self::RecordMigration(_) => Some(Self::RecordMigration(before.migration.clone())),
            // A migration that was on record before holds it still.
            Self::HoldMigrateReq { was } => match &before.migration {
                Some(migration) if migration.options.migrate_req.is_some() => None,
                Some(_) | None => Some(Self::ReleaseMigrateReq { was: *was }),
            },
            Self::ReleaseMigrateReq { was } => Some(Self::HoldMigrateReq { was: *was }),
            Self::Flip { group, .. } => before.groups.get(*group).map(|it| Self::Flip {
                group: *group,
                copy: it.active,
            }),
            Self::OpenParking { group } => Some(Self::CloseParking { group: *group }),
            Self::RotateParking { .. }
            | Self::CloseParking { .. }
            | Self::Clear { .. }
            | Self::WriteTable { .. }
            | Self::Attach { .. } => None,
        }
    }

    /// The effect's name, for logs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Insert { .. } => "insert",
            Self::Clear { .. } => "clear",
            Self::RecordInstance { .. } => "record-instance",
            Self::ForgetInstance(_) => "forget-instance",
            Self::RecordGeneration(_) => "record-generation",
            Self::RecordMigration(_) => "record-migration",
            Self::HoldMigrateReq { .. } => "hold-migrate-req",
            Self::ReleaseMigrateReq { .. } => "release-migrate-req",
            Self::WriteTable { .. } => "write-table",
            Self::Flip { .. } => "flip",
            Self::Attach { .. } => "attach",
            Self::OpenParking { .. } => "open-parking",
            Self::RotateParking { .. } => "rotate-parking",
            Self::CloseParking { .. } => "close-parking",
        }
    }
}
