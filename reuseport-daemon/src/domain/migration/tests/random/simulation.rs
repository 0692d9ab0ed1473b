//! A driver, the processes that it looks after, and their clients.

use std::collections::BTreeMap;

use super::{
    Killed, Op, Step,
    traffic::{Flow, Traffic},
};
use crate::domain::{
    Decision, Drain, Generation, InstanceState, Label, Observation, Options, Phase, ProcessId,
    Refusal, SocketCookie, Start, Wait, advance, listeners_closed, migrate,
    migration::tests::{PAUSE, phase_of, reading},
    park_timed_out, process_ended, release, resume, roll_back,
    testing::World,
};

pub(super) struct Simulation {
    world: World,
    traffic: BTreeMap<Generation, Traffic>,
    running: BTreeMap<u32, ProcessId>,
    started: u64,
    /// Listeners that were closed and are not known to be.
    unknown: Vec<SocketCookie>,
}

impl Simulation {
    pub(super) fn new(groups: u16) -> Self {
        Self {
            world: World::new(groups),
            traffic: BTreeMap::new(),
            running: BTreeMap::new(),
            started: 0,
            unknown: Vec::new(),
        }
    }

    pub(super) fn step(&mut self, step: &Step) {
        if let Some(decision) = self.decide(&step.op) {
            match &step.killed {
                None => self.world.perform(decision),
                Some(killed) => self.kill(&decision, killed),
            }
        }
        self.check();
    }

    /// What the driver would perform. A refusal changes nothing.
    fn decide(&mut self, op: &Op) -> Option<Decision> {
        match op {
            Op::Register {
                who,
                listeners,
                named,
            } => {
                let process = self.start(*who, *listeners);
                let label = named.then(|| format!("p{who}"));
                self.register(process, label.as_deref())
            }
            Op::Reopen {
                who,
                group,
                listeners,
            } => {
                let process = *self.running.get(who)?;
                let group = group % self.world.service.groups.len();
                let open = self.world.processes.get_mut(&process)?;
                if let Some(at) = open.iter().position(|it| it.group == group) {
                    let closed = open.remove(at).cookie;
                    self.world.kernel.close(&[closed]);
                    self.unknown.push(closed);
                }
                for _ in 0..*listeners {
                    self.world.listen(process, group);
                }
                self.register(process, None)
            }
            Op::Release(which) => release(&self.world.service, &self.label(*which)?).ok(),
            Op::Migrate {
                to,
                drain,
                retire,
                patience,
                traffic,
            } => {
                let options = Options {
                    drain: *drain,
                    retire: *retire,
                    deadline_ms: self.world.now + patience,
                    migrate_req: Some(self.world.kernel.migrate_req_before),
                };
                self.migrate(*to, options, *traffic)
            }
            Op::RollBack => roll_back(&self.world.service).ok(),
            Op::Observe => {
                let seen = self.observe()?;
                Some(advance(&self.world.service, seen, self.world.now))
            }
            Op::Miss => {
                self.world.wait?;
                let seen = Observation::Missed;
                Some(advance(&self.world.service, seen, self.world.now))
            }
            Op::Stale(seen) => self.see_stale(*seen),
            Op::Flow(flow) => {
                self.traffic.values_mut().for_each(|it| it.flow(*flow));
                None
            }
            Op::End(who) => {
                let process = self.running.remove(who)?;
                self.world.close(process);
                let generation = self.world.service.find_process(process)?;
                Some(process_ended(&self.world.service, generation))
            }
            Op::Close { who, group, all } => self.close(*who, *group, *all),
            Op::ParkTimeout(group) => {
                let group = group % self.world.service.groups.len();
                Some(park_timed_out(&self.world.service, group))
            }
            Op::Tick(by) => {
                self.world.now += by;
                None
            }
        }
    }

    fn close(&mut self, who: u32, group: usize, all: bool) -> Option<Decision> {
        let process = *self.running.get(&who)?;
        let group = group % self.world.service.groups.len();
        let open = self.world.processes.get_mut(&process)?;
        let here: Vec<_> = open
            .iter()
            .filter(|it| it.group == group)
            .copied()
            .collect();
        let closed: Vec<_> = here
            .iter()
            .skip(usize::from(!all))
            .map(|it| it.cookie)
            .collect();
        open.retain(|it| !closed.contains(&it.cookie));
        self.world.kernel.close(&closed);
        self.unknown.extend(closed);
        Some(listeners_closed(&self.world.service, &self.world.closed()))
    }

    fn start(&mut self, who: u32, listeners: usize) -> ProcessId {
        if let Some(process) = self.running.get(&who) {
            return *process;
        }
        self.started += 1;
        let process = ProcessId {
            pid: who,
            start_time: self.started,
        };
        self.world.start(process, listeners);
        self.running.insert(who, process);
        process
    }

    fn register(&self, process: ProcessId, label: Option<&str>) -> Option<Decision> {
        let open = &self.world.processes[&process];
        let groups = 0..self.world.service.groups.len();
        // What a look at the process would refuse.
        if !groups
            .into_iter()
            .all(|group| open.iter().any(|it| it.group == group))
        {
            return None;
        }
        let decided = self.world.decide_registration(process, label);
        decided.ok().map(|(decision, _)| decision)
    }

    fn migrate(&mut self, to: usize, options: Options, traffic: Traffic) -> Option<Decision> {
        let service = &self.world.service;
        let under_way = service.migration.is_some();
        match migrate(service, &self.label(to)?, options) {
            Ok(Start::Begin(decision)) => {
                assert!(!under_way, "one migration at a time");
                let serving = service.in_state(InstanceState::Serving);
                self.traffic.extend(serving.map(|it| (it, traffic)));
                Some(*decision)
            }
            Ok(Start::Unchanged) => None,
            Err(refusal) => {
                let expected = matches!(refusal, Refusal::MigrationUnderWay { .. });
                assert_eq!(expected, under_way, "{refusal}");
                None
            }
        }
    }

    /// What the driver sees of what it waits for.
    fn observe(&mut self) -> Option<Observation> {
        Some(match self.world.wait? {
            Wait::Grace => {
                self.traffic
                    .values_mut()
                    .for_each(Traffic::pass_grace_period);
                Observation::GraceOver
            }
            Wait::Snapshot | Wait::Reading { .. } => {
                let left = self.left();
                let half_open = left.iter().map(|it| it.half_open).sum();
                reading(half_open, left.iter().map(|it| it.queued).sum())
            }
            Wait::Retirement(options) => {
                if options.closes_listeners() {
                    self.world.shut_down_draining();
                }
                Observation::Retired
            }
        })
    }

    fn see_stale(&self, seen: Observation) -> Option<Decision> {
        let waited_for = match self.world.wait? {
            Wait::Grace => seen == Observation::GraceOver,
            Wait::Snapshot | Wait::Reading { .. } => {
                matches!(seen, Observation::Reading { .. } | Observation::Deaf)
            }
            Wait::Retirement(_) => {
                matches!(seen, Observation::Retired | Observation::NotRetired)
            }
        };
        let service = &self.world.service;
        let decision = advance(service, seen, self.world.now);
        let ignored = decision == Decision::unchanged(service);
        // The time is up whatever is seen: the migration ends, or leaves the rest to the kernel.
        let migration = service.migration.as_ref();
        let options = migration.map(|it| it.options);
        let left =
            options.is_some_and(|it| it.drain == Drain::Kernel && self.world.now >= it.deadline_ms);
        let retires = matches!(decision.wait, Some(Wait::Retirement(_)));
        let over = decision.end.is_some() || left && retires;
        assert!(waited_for || ignored || over, "{seen:?}");
        (!waited_for).then_some(decision)
    }

    fn kill(&mut self, decision: &Decision, killed: &Killed) {
        let part = |all: &Decision, count: usize| count % (all.effects.len() + 1);
        self.world
            .perform_some(decision, part(decision, killed.after));
        self.world.load();
        let ended = killed.meanwhile.and_then(|who| self.running.remove(&who));
        if let Some(process) = ended {
            self.world.close(process);
        }
        let resumed = resume(&self.world.service);
        match killed.again {
            Some(after) => self.world.crash(&resumed, part(&resumed, after)),
            None => self.world.perform(resumed),
        }
        self.report_ended();
    }

    /// A daemon that starts finds out which processes have ended.
    fn report_ended(&mut self) {
        let instances = self.world.service.instances.iter();
        let ended: Vec<_> = instances
            .filter(|(_, it)| it.state != InstanceState::Gone)
            .filter(|(_, it)| !self.world.processes.contains_key(&it.process))
            .map(|(generation, _)| *generation)
            .collect();
        for generation in ended {
            let decision = process_ended(&self.world.service, generation);
            self.world.perform(decision);
        }
    }

    /// What must hold between any two steps, on top of what [`World`] checks.
    fn check(&mut self) {
        let world = &self.world;
        let known = world
            .kernel
            .groups
            .iter()
            .flat_map(|it| it.records.values());
        let known: Vec<_> = known.map(|it| it.cookie).collect();
        self.unknown.retain(|it| known.contains(it));
        for listener in world.kernel.steered_listeners() {
            let open = world.kernel.open.contains(&listener);
            assert!(
                open || self.unknown.contains(&listener),
                "steered at a closed listener"
            );
        }

        let shutting_down =
            matches!(world.wait, Some(Wait::Retirement(options)) if options.closes_listeners());
        let service = &world.service;
        if service.in_state(InstanceState::Serving).next().is_none() {
            for (generation, instance) in &service.instances {
                let whole = service.uncovered(*generation).is_none();
                let spared = shutting_down && instance.state == InstanceState::Draining;
                assert!(!whole || spared, "{} could serve", instance.label);
            }
        }

        let expected: &[Phase] = match world.wait {
            None => &[],
            Some(Wait::Grace) => &[Phase::Switched, Phase::Settling],
            Some(Wait::Snapshot | Wait::Reading { .. }) => &[
                Phase::Handshakes { pause: PAUSE },
                Phase::Queues { pause: PAUSE },
            ],
            Some(Wait::Retirement(_)) => &[Phase::Retiring],
        };
        let kind = |it: &Phase| std::mem::discriminant(it);
        match phase_of(world) {
            None => assert_eq!(world.wait, None),
            Some(phase) => assert!(
                expected.iter().any(|it| kind(it) == kind(&phase)),
                "{:?} in {phase:?}",
                world.wait
            ),
        }
        if let Some(Wait::Retirement(options)) = world.wait {
            let left = self.left();
            let by_kernel = options.drain == Drain::Kernel;
            let arriving = left.iter().any(|it| it.arriving > 0);
            // At the deadline the kernel gets these too, and a handshake may end while it does.
            let late = world.now >= options.deadline_ms;
            let half_open = left.iter().any(|it| it.half_open + it.landing > 0);
            let moved = by_kernel && !arriving && (late || !half_open);
            assert!(
                moved || left.iter().all(|it| *it == Traffic::NONE),
                "something is left"
            );
        }
    }

    /// What the instances that are being drained have not accepted.
    fn left(&self) -> Vec<Traffic> {
        let draining = self.world.service.in_state(InstanceState::Draining);
        draining
            .filter_map(|it| self.traffic.get(&it))
            .copied()
            .collect()
    }

    fn label(&self, which: usize) -> Option<Label> {
        let instances: Vec<_> = self.world.service.instances.values().collect();
        let which = which.checked_rem(instances.len())?;
        Some(instances[which].label.clone())
    }

    /// Whatever is under way comes to an end when its connections do.
    pub(super) fn finish(&mut self) {
        for _ in 0..100 {
            if self.world.service.migration.is_none() {
                return;
            }
            for flow in [Flow::Accept, Flow::Land, Flow::Complete, Flow::Arrive] {
                self.step(&Step {
                    op: Op::Flow(flow),
                    killed: None,
                });
            }
            self.step(&Step {
                op: Op::Observe,
                killed: None,
            });
        }
        panic!("{:?} never ends", self.world.service.migration);
    }
}
