//! A service in a small model of the world, for tests: processes with listeners, the maps that
//! effects change, and a clock. Whatever is performed here is checked after every single effect.

mod kernel;

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Decision, Definition, Drain, Effect, End, Generation, InstanceState, Label, Observation,
    Options, Parking, Placed, ProcessId, Refusal, Retire, Service, SocketCookie, Start, Uid, Wait,
    advance, migrate, park, process_ended, register, release, resume, roll_back,
};
use kernel::{Kernel, assert_in_order};

/// The deadline of every migration that says nothing else.
pub(crate) const DEADLINE: u64 = 1000;

pub(crate) fn label(text: &str) -> Label {
    text.parse().expect("label")
}

/// The kernel moves what the old listeners hold.
pub(crate) fn by_kernel() -> Options {
    Options {
        drain: Drain::Kernel,
        ..keep()
    }
}

/// The process of a pid that was never used before.
pub(crate) fn process(pid: u32) -> ProcessId {
    ProcessId {
        pid,
        start_time: 100,
    }
}

pub(crate) fn keep() -> Options {
    options(Retire::Keep)
}

pub(crate) fn options(retire: Retire) -> Options {
    Options {
        drain: Drain::Owner,
        retire,
        deadline_ms: DEADLINE,
        migrate_req: None,
    }
}

#[derive(Clone, Debug)]
pub(crate) struct World {
    /// What the driver holds.
    pub(crate) service: Service,
    pub(crate) kernel: Kernel,
    /// Who listens.
    pub(crate) processes: BTreeMap<ProcessId, Vec<Placed>>,
    /// What the driver waits for.
    pub(crate) wait: Option<Wait>,
    /// How the last migration ended.
    pub(crate) end: Option<End>,
    pub(crate) now: u64,
    cookies: u64,
}

impl World {
    /// Listeners on record that have been closed.
    pub(in crate::domain) fn closed(&self) -> BTreeSet<SocketCookie> {
        let slots = self.service.groups.iter().flat_map(|it| it.slots.values());
        let known: BTreeSet<_> = slots.map(|it| it.cookie).collect();
        known.difference(&self.kernel.open).copied().collect()
    }

    /// A service of so many groups with 16 slots each.
    pub(crate) fn new(groups: u16) -> Self {
        Self::with_slots(groups, 16)
    }

    pub(crate) fn with_slots(groups: u16, slots: u32) -> Self {
        let definition = Definition {
            name: "game".parse().expect("name"),
            addresses: (0..groups)
                .map(|it| format!("127.0.0.1:{}", 7000 + it).parse().expect("address"))
                .collect(),
            owner: Uid(7),
            netns: None,
            slots,
            park_timeout: Some(Definition::PARK_TIMEOUT),
            instances: None,
        };
        Self {
            service: Service::new(definition.clone()),
            kernel: Kernel::new(definition),
            processes: BTreeMap::new(),
            wait: None,
            end: None,
            now: 0,
            cookies: 0,
        }
    }

    /// A service of two groups with instances v1, v2 and so on, of pid 1, 2 and so on, each with
    /// two listeners a group. v1 serves.
    pub(crate) fn with_instances(count: u32) -> Self {
        let mut world = Self::new(2);
        for pid in 1..=count {
            world.start(process(pid), 2);
            let registered = world.register(process(pid), Some(&format!("v{pid}")));
            assert_eq!(registered, Ok(Generation(pid)));
        }
        world
    }

    /// Lets a process have so many listeners in each group.
    pub(crate) fn start(&mut self, process: ProcessId, listeners: usize) {
        for group in 0..self.kernel.groups.len() {
            for _ in 0..listeners {
                self.listen(process, group);
            }
        }
    }

    pub(crate) fn listen(&mut self, process: ProcessId, group: usize) -> SocketCookie {
        self.cookies += 1;
        let cookie = SocketCookie(self.cookies);
        self.kernel.open.insert(cookie);
        let listeners = self.processes.entry(process).or_default();
        listeners.push(Placed { group, cookie });
        cookie
    }

    /// Closes all that a process has open.
    pub(crate) fn close(&mut self, process: ProcessId) {
        let listeners = self.processes.remove(&process).unwrap_or_default();
        let cookies: Vec<_> = listeners.iter().map(|it| it.cookie).collect();
        self.kernel.close(&cookies);
    }

    /// Closes what the draining instances listen on, though they live.
    pub(crate) fn shut_down_draining(&mut self) {
        for generation in self
            .service
            .in_state(InstanceState::Draining)
            .collect::<Vec<_>>()
        {
            let process = self.service.instances[&generation].process;
            self.close(process);
            self.processes.insert(process, Vec::new());
        }
    }

    pub(crate) fn decide_registration(
        &self,
        process: ProcessId,
        label: Option<&str>,
    ) -> Result<(Decision, Generation), Refusal> {
        let label = label.map(self::label);
        register(
            &self.service,
            process,
            label.as_ref(),
            &self.processes[&process],
        )
    }

    pub(crate) fn register(
        &mut self,
        process: ProcessId,
        label: Option<&str>,
    ) -> Result<Generation, Refusal> {
        let (decision, generation) = self.decide_registration(process, label)?;
        self.perform(decision);
        Ok(generation)
    }

    pub(crate) fn release(&mut self, label: &str) -> Result<(), Refusal> {
        let decision = release(&self.service, &self::label(label))?;
        self.perform(decision);
        Ok(())
    }

    /// Migrates; tells whether there was anything to do.
    pub(crate) fn migrate(&mut self, to: &str, options: Options) -> Result<bool, Refusal> {
        match migrate(&self.service, &label(to), options)? {
            Start::Unchanged => Ok(false),
            Start::Begin(decision) => {
                self.perform(*decision);
                Ok(true)
            }
        }
    }

    pub(crate) fn roll_back(&mut self) -> Result<(), Refusal> {
        let decision = roll_back(&self.service)?;
        self.perform(decision);
        Ok(())
    }

    pub(crate) fn see(&mut self, seen: Observation) {
        let decision = advance(&self.service, seen, self.now);
        self.perform(decision);
    }

    pub(crate) fn see_all(&mut self, all: &[Observation]) {
        for seen in all {
            self.see(*seen);
        }
    }

    /// Ends a process, and lets the service know.
    pub(crate) fn end_process(&mut self, process: ProcessId) {
        self.close(process);
        if let Some(generation) = self.service.find_process(process) {
            self.perform(process_ended(&self.service, generation));
        }
    }

    /// Performs a decision, checks it after every effect, and whether each could be taken back.
    pub(crate) fn perform(&mut self, decision: Decision) {
        assert_in_order(&decision);
        self.perform_some(&decision, decision.effects.len());
        self.kernel.assert_agrees(&decision.next);
        self.assert_slots_kept(&decision.next);
        self.service = decision.next;
        self.park();
        if decision.wait.is_some() || self.service.migration.is_none() {
            self.wait = decision.wait;
        }
        if let Some((_, end)) = decision.end {
            self.end = Some(end);
        }
        self.kernel.assert_steers_only_at(|it| self.serves(it));
        self.assert_served();
        let held = self
            .service
            .migration
            .as_ref()
            .map(|it| it.options.migrate_req);
        let on = matches!(held, Some(Some(_))) || self.kernel.migrate_req_before;
        assert_eq!(
            self.kernel.migrate_req, on,
            "on while it is held, else as it was"
        );
    }

    /// Looks after the parking listeners, as the driver does after every decision.
    pub(crate) fn park(&mut self) {
        for group in 0..self.service.groups.len() {
            let decision = park(&self.service, group);
            self.perform_some(&decision, decision.effects.len());
            self.kernel.assert_agrees(&decision.next);
            self.service = decision.next;
        }
        for group in &self.service.groups {
            let right = match group.parking {
                Parking::Closed => self.service.definition.park_timeout.is_none(),
                Parking::Spare => group.is_served(),
                Parking::Waiting | Parking::TimedOut => !group.is_served(),
            };
            assert!(right, "{:?}", group.parking);
        }
    }

    /// Performs the first effects of a decision only.
    pub(crate) fn perform_some(&mut self, decision: &Decision, count: usize) {
        let before = self.kernel.clone();
        let steered_at = before.steered_at();
        let next = &decision.next.instances;
        for (index, effect) in decision.effects[..count].iter().enumerate() {
            self.kernel.perform(effect);
            let done = &decision.effects[..=index];
            self.kernel
                .clone()
                .assert_undone(done, &before, &self.service);
            // Whoever serves after it, and nobody else who was not steered at before.
            self.kernel.assert_steers_only_at(|it| {
                let after = next.get(&it).map(|it| it.state);
                after == Some(InstanceState::Serving) || steered_at.contains(&it)
            });
        }
    }

    /// Kills the daemon after so many effects of a decision, and starts another one.
    pub(crate) fn crash(&mut self, decision: &Decision, after: usize) {
        self.perform_some(decision, after.min(decision.effects.len()));
        self.load();
        self.perform(resume(&self.service));
    }

    /// Forgets all that the driver knows, and reads it anew.
    pub(crate) fn load(&mut self) {
        self.kernel.forget_parking();
        self.service = self.kernel.load();
        self.wait = None;
    }

    pub(crate) fn state(&self, label: &str) -> Option<InstanceState> {
        let generation = self.service.find(&self::label(label)).ok()?;
        Some(self.service.instances[&generation].state)
    }

    /// Labels and states, oldest first.
    pub(crate) fn states(&self) -> Vec<(&str, InstanceState)> {
        let all = self.service.instances.values();
        all.map(|it| (it.label.as_str(), it.state)).collect()
    }

    pub(crate) fn names(effects: &[Effect]) -> Vec<&'static str> {
        effects.iter().map(Effect::name).collect()
    }

    fn serves(&self, generation: Generation) -> bool {
        let instance = self.service.instances.get(&generation);
        instance.is_some_and(|it| it.state == InstanceState::Serving)
    }

    fn assert_slots_kept(&self, next: &Service) {
        for (before, after) in self.service.groups.iter().zip(&next.groups) {
            for (slot, listener) in &before.slots {
                let now = after
                    .slots
                    .iter()
                    .find(|(_, it)| it.cookie == listener.cookie);
                assert!(
                    now.is_none_or(|(now, _)| now == slot),
                    "a listener keeps its slot"
                );
            }
        }
    }

    /// Asserts that whoever serves has every group, with fair shares for each listener, and that
    /// somebody serves if anybody could.
    fn assert_served(&self) {
        let serving: BTreeSet<_> = self.service.in_state(InstanceState::Serving).collect();
        for group in &self.kernel.groups {
            let records = group.records.iter();
            let expected: Vec<_> = records
                .filter(|(_, it)| serving.contains(&it.generation))
                .map(|(slot, _)| *slot)
                .collect();
            if expected.is_empty() {
                assert!(group.is_parked(), "nobody serves");
                continue;
            }
            let shares = group.shares();
            assert!(
                shares.keys().eq(&expected),
                "{shares:?} are not {expected:?}"
            );
            let (least, most) = (shares.values().min(), shares.values().max());
            assert!(
                most <= least.map(|it| it + 1).as_ref(),
                "{shares:?} are unfair"
            );
        }
    }
}

/// Lets a migration come to its end, with nothing to wait for.
pub(crate) fn drain(world: &mut World) {
    let empty = Observation::Reading {
        handshakes: 0,
        queued: 0,
    };
    let grace = Observation::GraceOver;
    world.see_all(&[grace, empty, grace, empty, Observation::Retired]);
}
