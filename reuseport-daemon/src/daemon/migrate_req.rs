//! The `migrate-req` setting: `tcp_migrate_req` in the namespaces that services are in.
//!
//! Several services can share a namespace. Whoever holds the switch on says what it was before; the
//! last to let go puts that back, which is the same for all: one that joins takes over what the
//! others say rather than what it reads.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::Deserialize;
use thiserror::Error;
use tracing::{info, warn};

use crate::{
    chain::chain,
    domain::ServiceName,
    sys::{
        migrate_req::{self, MigrateReqError},
        netns::{Netns, NetnsError, NetnsId},
    },
};

/// What the daemon does about `tcp_migrate_req`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MigrateReq {
    /// Nothing.
    #[default]
    Leave,
    /// It is on wherever a service is, and stays on.
    On,
    /// It is on while a migration is under way, and is then what it was before.
    DuringMigration,
}

/// The switch could not be read or turned.
#[derive(Debug, Error)]
pub(super) enum HoldError {
    /// The network namespace.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The sysctl.
    #[error(transparent)]
    MigrateReq(#[from] MigrateReqError),
}

/// Everyone who holds the switch on, and what it was before.
#[derive(Debug)]
pub(super) struct Holders {
    configured: MigrateReq,
    /// What of it this kernel can do.
    setting: MigrateReq,
    by_netns: Mutex<HashMap<NetnsId, BTreeMap<ServiceName, bool>>>,
}

impl Holders {
    /// Does as it is configured, where the kernel has the feature; where it lacks it, that is said,
    /// and nothing is done: services work without.
    pub(super) fn new(configured: MigrateReq) -> Self {
        let supported = migrate_req::supported().unwrap_or_else(|error| {
            warn!(
                error = chain(&error),
                "cannot tell whether this kernel migrates"
            );
            false
        });
        let setting = if supported || configured == MigrateReq::Leave {
            configured
        } else {
            warn!("migrate-req is ignored: this kernel does not have the feature (Linux 5.14+)");
            MigrateReq::Leave
        };
        Self {
            configured,
            setting,
            by_netns: Mutex::default(),
        }
    }

    /// What the configuration says.
    pub(super) fn configured(&self) -> MigrateReq {
        self.configured
    }

    /// Turns it on for good in a namespace that has a service, if that is configured.
    pub(super) fn prepare(&self, netns: &Netns) {
        if self.setting != MigrateReq::On {
            return;
        }
        if let Err(error) = turn(netns, true) {
            warn!(error = chain(&error), "cannot turn tcp_migrate_req on");
        }
    }

    /// What a migration is to put back at its end; nothing where it is not to touch the switch.
    pub(super) fn before(&self, netns: &Netns) -> Result<Option<bool>, HoldError> {
        if self.setting != MigrateReq::DuringMigration {
            return Ok(None);
        }
        let held = self.lock().get(&netns.identity()?).and_then(|it| {
            let (_, was) = it.first_key_value()?;
            Some(*was)
        });
        match held {
            Some(was) => Ok(Some(was)),
            None => Ok(netns.enter(migrate_req::read)??),
        }
    }

    /// Takes note of a hold that an earlier daemon has recorded.
    pub(super) fn note(
        &self,
        netns: &Netns,
        service: &ServiceName,
        was: bool,
    ) -> Result<(), HoldError> {
        let id = netns.identity()?;
        let mut holders = self.lock();
        holders.entry(id).or_default().insert(service.clone(), was);
        Ok(())
    }

    /// Turns it on until it is released.
    pub(super) fn hold(
        &self,
        netns: &Netns,
        service: &ServiceName,
        was: bool,
    ) -> Result<(), HoldError> {
        turn(netns, true)?;
        self.note(netns, service, was)
    }

    /// Puts back what was there, unless somebody else holds it still. Where that fails, it is held as
    /// before.
    pub(super) fn release(
        &self,
        netns: &Netns,
        service: &ServiceName,
        was: bool,
    ) -> Result<(), HoldError> {
        let id = netns.identity()?;
        let shared = |holders: &HashMap<NetnsId, BTreeMap<_, _>>| {
            let here = holders.get(&id);
            here.is_some_and(|it| it.keys().any(|holder| holder != service))
        };
        if !shared(&self.lock()) && self.setting != MigrateReq::On {
            turn(netns, was)?;
        }
        let mut holders = self.lock();
        if let Some(here) = holders.get_mut(&id) {
            here.remove(service);
            if here.is_empty() {
                holders.remove(&id);
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<NetnsId, BTreeMap<ServiceName, bool>>> {
        self.by_netns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn turn(netns: &Netns, on: bool) -> Result<(), HoldError> {
    let turned = netns.enter(|| -> Result<bool, MigrateReqError> {
        let differs = migrate_req::read()? != Some(on);
        if differs {
            migrate_req::set(on)?;
        }
        Ok(differs)
    })??;
    if turned {
        info!(on, "tcp_migrate_req turned");
    }
    Ok(())
}
