//! As much of the kernel as decisions change: records, slots, tables.

use std::collections::{BTreeMap, BTreeSet};

use reuseport_common::{FIRST_SLOT, PARKING_SLOT, SteeringTable};

use crate::domain::{
    Decision, Definition, Effect, Generation, Instance, InstanceState, Listener, Migration,
    Parking, Phase, Service, Slot, SocketCookie, TableCopy,
};

/// What an effect is performed on, and what outlives the daemon.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    pub(crate) definition: Definition,
    pub(crate) newest: Generation,
    pub(crate) groups: Vec<KernelGroup>,
    pub(crate) instances: BTreeMap<Generation, Instance>,
    pub(crate) migration: Option<Migration>,
    /// Listeners that some process has open.
    pub(crate) open: BTreeSet<SocketCookie>,
    /// `tcp_migrate_req`, now and before anything here changed it.
    pub(crate) migrate_req: bool,
    pub(crate) migrate_req_before: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct KernelGroup {
    pub(crate) records: BTreeMap<Slot, Listener>,
    /// The `SOCKARRAY`.
    sockets: BTreeMap<Slot, SocketCookie>,
    tables: [Table; 2],
    pub(crate) active: TableCopy,
    pub(crate) attached: bool,
    /// Whether a parking listener is open, which ends with the daemon.
    pub(crate) parks: bool,
}

#[derive(Clone, Debug)]
struct Table {
    content: Box<SteeringTable>,
    /// How many buckets go to each slot, counted once: it is looked at after every effect.
    shares: BTreeMap<Slot, usize>,
}

impl Table {
    fn new(content: Box<SteeringTable>) -> Self {
        let highest = content.slots.iter().max().copied().unwrap_or_default();
        let mut counts = vec![0; usize::from(highest) + 1];
        for slot in &content.slots {
            counts[usize::from(*slot)] += 1;
        }
        let shares = (0..=highest).zip(counts).filter(|(_, count)| *count > 0);
        let shares = shares.map(|(slot, count)| (Slot(slot), count)).collect();
        Self { content, shares }
    }
}

impl Kernel {
    pub(crate) fn new(definition: Definition) -> Self {
        let group = KernelGroup {
            records: BTreeMap::new(),
            sockets: BTreeMap::new(),
            tables: [(); 2].map(|()| Table::new(Box::new(SteeringTable::EMPTY))),
            active: TableCopy::First,
            attached: false,
            parks: false,
        };
        Self {
            newest: Generation(0),
            groups: vec![group; definition.addresses.len()],
            definition,
            instances: BTreeMap::new(),
            migration: None,
            open: BTreeSet::new(),
            migrate_req: false,
            migrate_req_before: false,
        }
    }

    /// Performs an effect as the driver would.
    pub(crate) fn perform(&mut self, effect: &Effect) {
        match effect {
            Effect::Insert {
                group,
                slot,
                listener,
            } => {
                assert!((FIRST_SLOT..self.definition.slots).contains(&u32::from(slot.0)));
                assert!(self.open.contains(&listener.cookie), "only what listens");
                let group = &mut self.groups[*group];
                let twice = group.sockets.values().any(|it| *it == listener.cookie);
                assert!(!twice, "one socket, one slot");
                assert_eq!(group.records.insert(*slot, *listener), None);
                assert_eq!(group.sockets.insert(*slot, listener.cookie), None);
            }
            Effect::Clear { group, slot } => {
                let group = &mut self.groups[*group];
                group.records.remove(slot);
                group.sockets.remove(slot);
            }
            Effect::RecordInstance {
                generation,
                instance,
            } => {
                self.instances.insert(*generation, instance.clone());
            }
            Effect::ForgetInstance(generation) => {
                self.instances.remove(generation);
            }
            Effect::RecordGeneration(newest) => self.newest = *newest,
            Effect::RecordMigration(migration) => {
                self.migration = migration.as_ref().map(as_recorded);
            }
            Effect::HoldMigrateReq { .. } => {
                assert!(self.migration.is_some(), "recorded before it is turned");
                self.migrate_req = true;
            }
            Effect::ReleaseMigrateReq { was } => self.migrate_req = *was,
            Effect::WriteTable { group, copy, table } => {
                let group = &mut self.groups[*group];
                assert_ne!(group.active, *copy, "the active table is never written");
                group.tables[copy.index() as usize] = Table::new(table.clone());
            }
            Effect::Flip { group, copy } => self.groups[*group].active = *copy,
            Effect::Attach { group, cookie } => {
                assert!(self.open.contains(cookie));
                self.groups[*group].attached = true;
            }
            Effect::OpenParking { group } => {
                let group = &mut self.groups[*group];
                assert!(!group.parks, "one parking listener a group");
                group.parks = true;
                group.attached = true;
            }
            Effect::RotateParking { group } => {
                let group = &self.groups[*group];
                assert!(group.parks, "nothing to rotate");
                assert!(!group.is_parked(), "its connections have nowhere to go");
            }
            Effect::CloseParking { group } => {
                assert!(self.groups[*group].parks, "nothing to close");
                self.groups[*group].parks = false;
            }
        }
    }

    /// Closes listeners, which empties their slots.
    pub(crate) fn close(&mut self, cookies: &[SocketCookie]) {
        for cookie in cookies {
            self.open.remove(cookie);
            for group in &mut self.groups {
                group.sockets.retain(|_, it| it != cookie);
            }
        }
    }

    /// Closes every parking listener, as the daemon's end does.
    pub(crate) fn forget_parking(&mut self) {
        self.groups.iter_mut().for_each(|it| it.parks = false);
    }

    /// The service as a daemon that starts now finds it.
    pub(crate) fn load(&self) -> Service {
        let mut service = Service::new(self.definition.clone());
        service.newest = self.newest;
        service.instances = self.instances.clone();
        service.migration = self.migration.clone();
        for (group, kernel) in service.groups.iter_mut().zip(&self.groups) {
            group.slots = kernel.records.clone();
            group.active = kernel.active;
            group.table = kernel.active_table().content.clone();
        }
        service
    }

    /// Asserts that a service is what has been written down.
    pub(crate) fn assert_agrees(&self, service: &Service) {
        let mut expected = service.clone();
        expected.migration = expected.migration.as_ref().map(as_recorded);
        for (group, kernel) in expected.groups.iter_mut().zip(&self.groups) {
            assert_eq!(group.parking.is_open(), kernel.parks);
            group.parking = Parking::Closed;
        }
        let found = self.load();
        // Tables are too long to print.
        for (index, (expected, found)) in expected.groups.iter().zip(&found.groups).enumerate() {
            assert!(
                expected.active == found.active && expected.table == found.table,
                "the table of group {index} is not the expected one"
            );
        }
        assert!(expected == found, "{expected:?}\nis not\n{found:?}");
    }

    /// Asserts what must hold whenever a packet may come, which is always: what the active tables
    /// name is on record, in its slot, and an instance that may be steered at.
    pub(crate) fn assert_steers_only_at(&self, allowed: impl Fn(Generation) -> bool) {
        for group in &self.groups {
            for slot in group.named() {
                let listener = group.records.get(slot).expect("a named slot is on record");
                if self.open.contains(&listener.cookie) {
                    let socket = group.sockets.get(slot);
                    assert_eq!(
                        socket,
                        Some(&listener.cookie),
                        "a named slot has its listener"
                    );
                }
                let generation = listener.generation;
                assert!(allowed(generation), "steered at generation {generation}");
            }
        }
    }

    /// The instances that the active tables name listeners of.
    pub(crate) fn steered_at(&self) -> BTreeSet<Generation> {
        self.named().map(|it| it.generation).collect()
    }

    /// The listeners that the active tables name.
    pub(crate) fn steered_listeners(&self) -> impl Iterator<Item = SocketCookie> {
        self.named().map(|it| it.cookie)
    }

    fn named(&self) -> impl Iterator<Item = &Listener> {
        let groups = self.groups.iter();
        groups.flat_map(|group| group.named().filter_map(|slot| group.records.get(slot)))
    }

    /// Asserts that taking back `done`, the effects performed on `before`, leads back to it.
    pub(crate) fn assert_undone(mut self, done: &[Effect], before: &Self, service: &Service) {
        let mut expected = before.clone();
        let lasting = done
            .iter()
            .filter(|it| matches!(it, Effect::Clear { .. } | Effect::CloseParking { .. }));
        // Nothing that follows one of these may fail, so that it need not be taken back.
        lasting.for_each(|it| expected.perform(it));
        for effect in done.iter().rev().filter_map(|it| it.undo(service)) {
            self.perform(&effect);
        }
        let parks = |it: &Self| it.groups.iter().map(|it| it.parks).collect::<Vec<_>>();
        assert_eq!(parks(&self), parks(&expected));
        self.forget_parking();
        self.assert_agrees(&expected.load());
        // While a migration is on record either will do: whoever goes on with it turns the switch.
        if expected.migration.is_none() {
            assert_eq!(self.migrate_req, expected.migrate_req);
        }
        for (left, right) in self.groups.iter().zip(&expected.groups) {
            assert_eq!(left.sockets, right.sockets);
        }
    }
}

impl KernelGroup {
    fn active_table(&self) -> &Table {
        &self.tables[self.active.index() as usize]
    }

    /// How many buckets go to each slot that is named.
    pub(crate) fn shares(&self) -> &BTreeMap<Slot, usize> {
        &self.active_table().shares
    }

    /// Whether everything goes to the parking slot.
    pub(crate) fn is_parked(&self) -> bool {
        self.named().next().is_none()
    }

    /// The slots that are named, parking aside.
    fn named(&self) -> impl Iterator<Item = &Slot> {
        let all = self.shares().keys();
        all.filter(|slot| u32::from(slot.0) != PARKING_SLOT)
    }
}

/// What a record keeps of a migration.
fn as_recorded(migration: &Migration) -> Migration {
    Migration {
        from: Vec::new(),
        phase: match migration.phase {
            Phase::Staged => Phase::Staged,
            Phase::Switched | Phase::Handshakes { .. } | Phase::Settling | Phase::Queues { .. } => {
                Phase::Switched
            }
            Phase::Retiring => Phase::Retiring,
        },
        tally: None,
        ..migration.clone()
    }
}

/// Asserts the order of a decision's effects.
pub(crate) fn assert_in_order(decision: &Decision) {
    let at = |wanted: &dyn Fn(&Effect) -> bool| -> Vec<usize> {
        let all = decision.effects.iter().enumerate();
        all.filter(|(_, effect)| wanted(effect))
            .map(|(index, _)| index)
            .collect()
    };
    let recorded = |phase: Phase| {
        at(&|it| matches!(it, Effect::RecordMigration(Some(migration)) if migration.phase == phase))
    };
    let writes = at(&|it| matches!(it, Effect::WriteTable { .. }));
    let flips = at(&|it| matches!(it, Effect::Flip { .. }));
    assert_eq!(writes.len(), flips.len());
    assert!(
        writes.last() < flips.first() || writes.is_empty(),
        "all tables, then all words"
    );
    for staged in recorded(Phase::Staged) {
        assert!(
            writes.iter().all(|write| staged < *write),
            "staged before any table"
        );
    }
    for switched in recorded(Phase::Switched) {
        assert!(
            flips.iter().all(|flip| *flip < switched),
            "switched after every word"
        );
        let staged = recorded(Phase::Staged);
        assert_eq!(
            staged.is_empty(),
            flips.is_empty(),
            "what flips is staged first"
        );
    }
    let clears = at(&|it| matches!(it, Effect::Clear { .. }));
    assert!(
        clears.first() > flips.last() || clears.is_empty(),
        "no slot is emptied while a table may name it"
    );
    let serving = decision.next.in_state(InstanceState::Serving).count();
    assert!(serving <= 1, "{serving} instances serve");
}
