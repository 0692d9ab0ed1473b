//! What must be true afterwards, whoever was killed, and when.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use aya::maps::{HashMap, Map, MapData};
use reuseport_common::SlotRecord;
use reuseport_daemon::{
    api::wire::{Migrate, ServiceStatus},
    domain::Address,
    lab::fixture::Fixture,
    sys::migrate_req,
};
use reuseport_tests::{
    stage::{SERVICE, listening, tag},
    traces::tree,
    wait::until,
};

use super::{
    operation::Operation,
    scene::{CLIENTS, Scene, Victim, addresses, lives},
};

/// Requests by which whoever does not serve would have been found out.
const ENOUGH: u64 = 24;

/// What may come of an operation.
pub(super) struct Expected {
    /// In which states the instances may be where no server was killed.
    signatures: Vec<Option<Vec<String>>>,
    /// Everything on the bpffs while the service is there.
    pins: Vec<PathBuf>,
}

impl Expected {
    /// Learnt from an operation that nobody disturbed.
    pub(super) fn of(
        operation: Operation,
        before: Option<Vec<String>>,
        after: &Scene,
    ) -> Result<Self> {
        let mut signatures = vec![after.signature()?];
        match operation {
            // The one was killed before it was asked, and the migration went on.
            Operation::RollBack => {
                let there = ["v1 retired 2", "v3 standby 2", "v2 serving 2"];
                signatures.push(Some(there.map(ToOwned::to_owned).to_vec()));
            }
            // One that is an instance already keeps what it has been given.
            Operation::RegisterMore => {
                let half = before.as_ref().map(|it| {
                    let more = |it: &String| it.replace("v1 serving 2", "v1 serving 3");
                    it.iter().map(more).collect()
                });
                signatures.extend([before, half]);
            }
            // What is closed is seen to by whichever daemon is there.
            Operation::RegisterFewer
            | Operation::ServingEnds
            | Operation::Park
            | Operation::ParkTimeout => {}
            // The one that is gone is forgotten before the next one is on record.
            Operation::Unpark => signatures.extend([before, Some(Vec::new())]),
            Operation::Add
            | Operation::AddParked
            | Operation::RemoveParked
            | Operation::RegisterFirst
            | Operation::RegisterStandby
            | Operation::Migrate { .. }
            | Operation::Release
            | Operation::Remove => signatures.push(before),
        }
        if !operation.removes() {
            let pins = pins(after)?;
            return Ok(Self { signatures, pins });
        }
        operation.add(after.stage.daemon())?;
        let pins = pins(after)?;
        operation.perform(&after.stage, &after.old, &after.new)?;
        Ok(Self { signatures, pins })
    }
}

impl Scene {
    /// Checks everything, once nothing is under way any more.
    pub(super) fn check(self, expected: &Expected, killed: Option<Victim>) -> Result<()> {
        let service = self.service()?;
        self.check_states(expected, killed, service.as_ref())?;
        if let Some(service) = &service {
            ensure!(pins(&self)? == expected.pins, "pins: {:?}", pins(&self)?);
            self.check_slots(service)?;
        } else {
            let left = tree(&self.stage.home().bpffs().join("reuseportd"))?;
            ensure!(left.is_empty(), "pins without a service: {left:?}");
        }
        self.check_kept(service.as_ref())?;
        let held = self.stage.world.server().enter(migrate_req::read)??;
        ensure!(held == Some(false), "tcp_migrate_req is {held:?}");
        self.check_traffic(service.as_ref(), killed)
    }

    /// Whoever serves answers, and nobody else does; the service moves to another instance as if
    /// nothing had been; and no connection is missing but those that a server took with it.
    fn check_traffic(self, service: Option<&ServiceStatus>, killed: Option<Victim>) -> Result<()> {
        let quiet = self.load.mark();
        let nobody = |it: &ServiceStatus| {
            it.groups.iter().all(|it| it.parking.is_some()) && serving(it).is_empty()
        };
        if self.operation == Operation::ParkTimeout {
            // They are refused, and go on asking.
        } else if service.is_some_and(nobody) {
            self.until_all_wait()?;
        } else {
            self.advance(ENOUGH)?;
        }
        let asked = self.load.mark();
        let next = self.migrate_on().context("a migration afterwards")?;
        let moved = self.load.mark();
        self.advance(ENOUGH)?;
        let end = self.load.mark();
        let log = self.stage.daemon().log();
        ensure!(!log.contains("panicked"), "{log}");

        let ledger = self.load.stop()?.connections;
        if let Some(label) = service.and_then(|it| serving(it).first().copied()) {
            ensure!(ledger.check_within(quiet..asked, tag(label))? > 0);
        }
        ensure!(ledger.check_within(moved..end, tag("v9"))? > 0);
        let refuses = self.operation == Operation::ParkTimeout;
        let safe = if refuses { moved } else { quiet };
        let late = ledger.losses().iter().find(|it| it.began >= safe);
        ensure!(late.is_none(), "lost afterwards: {late:?}");
        let ended = u64::from(self.operation.ends_the_old())
            + u64::from(killed.is_some_and(Victim::has_server));
        ensure!(
            refuses || ledger.lost() <= ended * u64::from(CLIENTS),
            "{} lost: {:?}",
            ledger.lost(),
            ledger.losses()
        );
        let settled = ledger.answered() + ledger.lost();
        ensure!(settled == ledger.begun(), "{settled} of {}", ledger.begun());
        drop(next);
        Ok(())
    }

    fn check_states(
        &self,
        expected: &Expected,
        killed: Option<Victim>,
        service: Option<&ServiceStatus>,
    ) -> Result<()> {
        if matches!(killed, None | Some(Victim::Daemon)) {
            let signature = self.signature()?;
            let allowed = match killed {
                None => &expected.signatures[..1],
                Some(_) => &expected.signatures,
            };
            ensure!(
                allowed.contains(&signature),
                "{signature:?}, not {allowed:?}"
            );
        }
        let Some(service) = service else {
            return Ok(());
        };
        for instance in &service.instances {
            let dead = instance.state == "gone";
            ensure!(dead != lives(instance.pid), "{instance:?}");
            ensure!(!dead || instance.listeners.is_empty(), "{instance:?}");
        }
        let mut able = service.instances.iter();
        let able = able.any(|it| it.state != "gone" && !it.listeners.is_empty());
        let serving = serving(service);
        ensure!(
            serving.len() == usize::from(able),
            "{serving:?} of {service:?}"
        );
        Ok(())
    }

    /// The service manager keeps the parking listeners, and nothing else.
    fn check_kept(&self, service: Option<&ServiceStatus>) -> Result<()> {
        let groups = service.iter().flat_map(|it| &it.groups);
        let open = groups.filter(|it| it.parking.as_ref().is_some_and(|it| it.open));
        let open = open.count();
        let mut kept = Vec::new();
        let settled = until("the parking listeners are kept", || {
            kept = self.stage.home().manager().kept()?;
            Ok(kept.len() == open)
        });
        settled.with_context(|| format!("{kept:?} for {open}"))
    }

    /// Every slot that is taken is a known instance's.
    fn check_slots(&self, service: &ServiceStatus) -> Result<()> {
        let mut known: BTreeMap<&str, BTreeSet<(u32, u64, u32)>> = BTreeMap::new();
        for group in &service.groups {
            known.insert(&group.listen, BTreeSet::new());
        }
        for instance in &service.instances {
            for listener in &instance.listeners {
                let slots = known.get_mut(listener.listen.as_str()).context("a group")?;
                let slot = u32::from(listener.slot);
                slots.insert((slot, listener.cookie, instance.generation));
            }
        }
        for (listen, known) in known {
            let address: Address = listen.parse()?;
            let service = self.stage.home().bpffs().join("reuseportd").join(SERVICE);
            let taken = slots(&service.join(address.directory()).join("slots"))?;
            ensure!(taken == known, "{taken:?} are taken, {known:?} are known");
        }
        Ok(())
    }

    /// Moves the service to a new instance.
    fn migrate_on(&self) -> Result<Fixture> {
        let daemon = self.stage.daemon();
        let addresses = addresses();
        self.operation.add(daemon)?;
        let listen = addresses.each_ref().map(String::as_str);
        let next = self.stage.server(&listening("v9", &listen))?;
        let parameters = Migrate {
            service: SERVICE.to_owned(),
            to_pid: Some(next.pid()),
            label: Some("v9".to_owned()),
            ..Migrate::default()
        };
        let result = daemon.migrate(&parameters, |_| {})?;
        // The first instance serves at once.
        let done = ["done", "unchanged"].contains(&result.outcome.as_str());
        ensure!(done, "{result:?}");
        Ok(next)
    }
}

/// Labels of the instances that serve.
fn serving(service: &ServiceStatus) -> Vec<&str> {
    let instances = service.instances.iter();
    let serving = instances.filter(|it| it.state == "serving");
    serving.map(|it| it.label.as_str()).collect()
}

/// Everything on the bpffs, wherever that is.
fn pins(scene: &Scene) -> Result<Vec<PathBuf>> {
    let root = scene.stage.home().bpffs();
    let all = tree(&root)?.into_iter();
    all.map(|it| Ok(it.strip_prefix(&root)?.to_owned()))
        .collect()
}

/// What is written of a group's slots: slot, cookie and generation.
fn slots(pin: &Path) -> Result<BTreeSet<(u32, u64, u32)>> {
    let map = Map::from_map_data(MapData::from_pin(pin)?)?;
    let map: HashMap<_, u32, SlotRecord> = map.try_into()?;
    let all = map.iter().map(|entry| {
        let (slot, record) = entry?;
        Ok((slot, record.cookie, record.generation))
    });
    all.collect()
}
