//! The operations that change something.

use anyhow::{Context, Result, ensure};
use reuseport_daemon::{
    api::wire::{AddService, Changed, Migrate, Release, ServiceRef},
    lab::{daemon::Daemon, fixture::Fixture},
};
use reuseport_tests::{
    stage::{SERVICE, Stage},
    wait::until,
};
use rustix::process::Signal;

use super::scene::{Victim, addresses};

/// How long connections wait in an operation that waits until they may no longer, and in others.
const SHORT_MS: u64 = 300;
const LONG_MS: u64 = 60_000;

/// What is under way when somebody is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// `service add`
    Add,
    /// `register` of the first instance, which serves from then on.
    RegisterFirst,
    /// `register` of one that stands by.
    RegisterStandby,
    /// `register` of an instance that has opened more listeners.
    RegisterMore,
    /// `register` of an instance that has closed a listener.
    RegisterFewer,
    /// `migrate`
    Migrate {
        /// `--drain`
        drain: &'static str,
        /// `--retire`
        retire: &'static str,
    },
    /// `rollback` of a migration that drains.
    RollBack,
    /// `release`
    Release,
    /// `service remove`
    Remove,
    /// The process that serves ends by itself.
    ServingEnds,
    /// `service add --park`
    AddParked,
    /// The last process that serves ends by itself, and its service parks.
    Park,
    /// `register` of an instance that all wait for.
    Unpark,
    /// Nobody serves for as long as connections may wait.
    ParkTimeout,
    /// `service remove` of a service that connections wait for.
    RemoveParked,
}

impl Operation {
    /// Each of them.
    pub(crate) const ALL: [Self; 20] = [
        Self::Add,
        Self::RegisterFirst,
        Self::RegisterStandby,
        Self::RegisterMore,
        Self::RegisterFewer,
        migrate("owner", "keep"),
        migrate("owner", "shutdown"),
        migrate("owner", "signal:TERM"),
        migrate("kernel", "keep"),
        migrate("kernel", "shutdown"),
        migrate("kernel", "signal:TERM"),
        Self::RollBack,
        Self::Release,
        Self::Remove,
        Self::ServingEnds,
        Self::AddParked,
        Self::Park,
        Self::Unpark,
        Self::ParkTimeout,
        Self::RemoveParked,
    ];

    /// What to call it.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Add => "add".to_owned(),
            Self::RegisterFirst => "register_first".to_owned(),
            Self::RegisterStandby => "register_standby".to_owned(),
            Self::RegisterMore => "register_more".to_owned(),
            Self::RegisterFewer => "register_fewer".to_owned(),
            Self::Migrate { drain, retire } => {
                format!("migrate_{drain}_{}", retire.trim_end_matches(":TERM"))
            }
            Self::RollBack => "rollback".to_owned(),
            Self::Release => "release".to_owned(),
            Self::Remove => "remove".to_owned(),
            Self::ServingEnds => "serving_ends".to_owned(),
            Self::AddParked => "parking_added".to_owned(),
            Self::Park => "parking_began".to_owned(),
            Self::Unpark => "parking_ended".to_owned(),
            Self::ParkTimeout => "parking_timed_out".to_owned(),
            Self::RemoveParked => "parking_removed".to_owned(),
        }
    }

    /// Who can be killed meanwhile, and makes a difference.
    pub(super) fn victims(self) -> &'static [Victim] {
        match self {
            Self::Add | Self::AddParked | Self::Park | Self::ParkTimeout | Self::RemoveParked => {
                &[Victim::Daemon]
            }
            Self::RegisterFirst => &[Victim::Daemon, Victim::Old, Victim::DaemonAndOld],
            Self::ServingEnds | Self::Unpark => {
                &[Victim::Daemon, Victim::New, Victim::DaemonAndNew]
            }
            Self::RegisterStandby
            | Self::RegisterMore
            | Self::RegisterFewer
            | Self::Migrate { .. }
            | Self::RollBack
            | Self::Release
            | Self::Remove => &[
                Victim::Daemon,
                Victim::Old,
                Victim::New,
                Victim::DaemonAndOld,
                Victim::DaemonAndNew,
            ],
        }
    }

    /// Whether it ends the old server without anybody's killing it.
    pub(super) fn ends_the_old(self) -> bool {
        matches!(self, Self::ServingEnds | Self::Park | Self::ParkTimeout)
    }

    /// Whether the service parks.
    pub(crate) fn parks(self) -> bool {
        matches!(
            self,
            Self::AddParked | Self::Park | Self::Unpark | Self::ParkTimeout | Self::RemoveParked
        )
    }

    /// Whether the service is added by it.
    pub(super) fn adds(self) -> bool {
        matches!(self, Self::Add | Self::AddParked)
    }

    /// Whether the service goes by it.
    pub(super) fn removes(self) -> bool {
        matches!(self, Self::Remove | Self::RemoveParked)
    }

    /// Whether nobody serves before it, and everybody waits.
    pub(super) fn finds_nobody(self) -> bool {
        matches!(self, Self::Unpark | Self::RemoveParked)
    }

    /// Adds the service, unless it is there.
    pub(super) fn add(self, daemon: &Daemon) -> Result<()> {
        let timeout = if self == Self::ParkTimeout {
            SHORT_MS
        } else {
            LONG_MS
        };
        let parameters = AddService {
            name: SERVICE.to_owned(),
            listen: addresses().to_vec(),
            park: self.parks(),
            park_timeout_ms: self.parks().then_some(timeout),
            ..AddService::default()
        };
        let _: Changed = daemon.call("AddService", &parameters)?;
        Ok(())
    }

    /// Whether it tells the old server to end.
    pub(super) fn signals(self) -> bool {
        matches!(self, Self::Migrate { retire, .. } if retire.starts_with("signal"))
    }

    /// Does it, and waits until the daemon has nothing more to do for it.
    pub(super) fn perform(self, stage: &Stage, old: &Fixture, new: &Fixture) -> Result<()> {
        let daemon = stage.daemon();
        match self {
            Self::Add | Self::AddParked => self.add(daemon)?,
            Self::RegisterFirst | Self::RegisterMore | Self::RegisterFewer => {
                daemon.register(SERVICE, old.pid(), "v1")?;
            }
            Self::RegisterStandby => {
                daemon.register(SERVICE, new.pid(), "v2")?;
            }
            Self::Unpark => {
                daemon.register(SERVICE, new.pid(), "v2")?;
                until_rotated(stage)?;
            }
            Self::Migrate { drain, retire } => {
                let parameters = Migrate {
                    service: SERVICE.to_owned(),
                    to: Some("v2".to_owned()),
                    drain: Some(drain.to_owned()),
                    retire: Some(retire.to_owned()),
                    ..Migrate::default()
                };
                let result = daemon.migrate(&parameters, |_| {})?;
                ensure!(result.outcome == "done", "{result:?}");
                if self.signals() {
                    until("v1 is forgotten", || Ok(state(daemon, "v1")?.is_none()))?;
                }
            }
            Self::RollBack => {
                let service = SERVICE.to_owned();
                let _: Changed = daemon.call("Rollback", &ServiceRef { service })?;
            }
            Self::Release => {
                let parameters = Release {
                    service: SERVICE.to_owned(),
                    label: "v2".to_owned(),
                };
                let _: Changed = daemon.call("Release", &parameters)?;
            }
            Self::Remove | Self::RemoveParked => {
                let service = SERVICE.to_owned();
                let _: Changed = daemon.call("RemoveService", &ServiceRef { service })?;
            }
            Self::ServingEnds | Self::Park | Self::ParkTimeout => {
                end_the_old(daemon, old)?;
                if self == Self::ParkTimeout {
                    until("nobody waits", || is_parking(daemon, false))?;
                }
            }
        }
        Ok(())
    }
}

const fn migrate(drain: &'static str, retire: &'static str) -> Operation {
    Operation::Migrate { drain, retire }
}

/// Kills `v1`, and waits until the daemon knows.
pub(super) fn end_the_old(daemon: &Daemon, old: &Fixture) -> Result<()> {
    old.signal(Signal::KILL)?;
    until("v1 is gone", || {
        Ok(state(daemon, "v1")?.as_deref() == Some("gone"))
    })
}

/// Waits until listeners have been closed whose place others have taken.
pub(super) fn until_rotated(stage: &Stage) -> Result<()> {
    until("one for each address is kept", || {
        Ok(stage.home().manager().kept()?.len() == addresses().len())
    })
}

/// Whether every group of the service has a parking listener, or none has.
pub(super) fn is_parking(daemon: &Daemon, open: bool) -> Result<bool> {
    let services = daemon.status()?;
    let service = services.into_iter().find(|it| it.name == SERVICE);
    let groups = service.context("the service")?.groups;
    let mut parking = groups.iter().map(|it| it.parking.as_ref());
    Ok(parking.all(|it| it.is_some_and(|it| it.open) == open))
}

fn state(daemon: &Daemon, label: &str) -> Result<Option<String>> {
    let services = daemon.status()?;
    let service = services.into_iter().find(|it| it.name == SERVICE);
    let instances = service.context("the service")?.instances;
    let found = instances.into_iter().find(|it| it.label == label);
    Ok(found.map(|it| it.state))
}
