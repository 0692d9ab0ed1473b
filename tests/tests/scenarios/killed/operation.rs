//! The operations that change something.

use anyhow::{Context, Result, ensure};
use reuseport_daemon::{
    api::wire::{Changed, Migrate, Release, ServiceRef},
    lab::{daemon::Daemon, fixture::Fixture},
};
use reuseport_tests::{stage::SERVICE, wait::until};
use rustix::process::Signal;

use super::scene::{Victim, addresses};

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
}

impl Operation {
    /// Each of them.
    pub(crate) const ALL: [Self; 14] = [
        Self::Add,
        Self::RegisterFirst,
        Self::RegisterStandby,
        Self::RegisterMore,
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
    ];

    /// What to call it.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Add => "add".to_owned(),
            Self::RegisterFirst => "register_first".to_owned(),
            Self::RegisterStandby => "register_standby".to_owned(),
            Self::RegisterMore => "register_more".to_owned(),
            Self::Migrate { drain, retire } => {
                format!("migrate_{drain}_{}", retire.trim_end_matches(":TERM"))
            }
            Self::RollBack => "rollback".to_owned(),
            Self::Release => "release".to_owned(),
            Self::Remove => "remove".to_owned(),
            Self::ServingEnds => "serving_ends".to_owned(),
        }
    }

    /// Who can be killed meanwhile, and makes a difference.
    pub(super) fn victims(self) -> &'static [Victim] {
        match self {
            Self::Add => &[Victim::Daemon],
            Self::RegisterFirst => &[Victim::Daemon, Victim::Old, Victim::DaemonAndOld],
            Self::ServingEnds => &[Victim::Daemon, Victim::New, Victim::DaemonAndNew],
            Self::RegisterStandby
            | Self::RegisterMore
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
        self == Self::ServingEnds
    }

    /// Whether it tells the old server to end.
    pub(super) fn signals(self) -> bool {
        matches!(self, Self::Migrate { retire, .. } if retire.starts_with("signal"))
    }

    /// Does it, and waits until the daemon has nothing more to do for it.
    pub(super) fn perform(self, daemon: &Daemon, old: &Fixture, new: &Fixture) -> Result<()> {
        match self {
            Self::Add => {
                daemon.add_service(SERVICE, &addresses())?;
            }
            Self::RegisterFirst | Self::RegisterMore => {
                daemon.register(SERVICE, old.pid(), "v1")?;
            }
            Self::RegisterStandby => {
                daemon.register(SERVICE, new.pid(), "v2")?;
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
            Self::Remove => {
                let service = SERVICE.to_owned();
                let _: Changed = daemon.call("RemoveService", &ServiceRef { service })?;
            }
            Self::ServingEnds => {
                old.signal(Signal::KILL)?;
                until("v1 is gone", || {
                    Ok(state(daemon, "v1")?.as_deref() == Some("gone"))
                })?;
            }
        }
        Ok(())
    }
}

const fn migrate(drain: &'static str, retire: &'static str) -> Operation {
    Operation::Migrate { drain, retire }
}

fn state(daemon: &Daemon, label: &str) -> Result<Option<String>> {
    let services = daemon.status()?;
    let service = services.into_iter().find(|it| it.name == SERVICE);
    let instances = service.context("the service")?.instances;
    let found = instances.into_iter().find(|it| it.label == label);
    Ok(found.map(|it| it.state))
}
