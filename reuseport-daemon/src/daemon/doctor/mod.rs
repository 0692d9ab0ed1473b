//! `doctor`: what steering depends on, tried and looked at, and what of it is not as it should be.
//!
//! ```text
//!   driver ── what it knows ──> facts (tried and read, beside the driver) ──> findings (pure)
//! ```

mod finding;
mod machine;
mod namespace;
mod service;

use std::{collections::HashSet, path::Path, path::PathBuf, sync::Arc};

use self::{
    finding::{Finding, by_weight},
    service::Half,
};
use super::{MigrateReq, driver::Driver, parking::Store, probe::Probe};
use crate::{
    api::{
        Replier, Scope,
        wire::{self, Failure, Reply},
    },
    domain::Uid,
    steering::{Loader, LogLevel},
    sys::{migrate_req, netns::Netns},
};

impl Driver {
    /// Answers with the findings of the machine, and of the services that the call may be about.
    /// The maps are read here, the rest beside the driver.
    pub(super) fn examine(&self, scope: Scope, name: Option<&str>, replier: Replier) {
        let halves = self.services(scope, name).and_then(|services| {
            let halves = services.into_iter().map(Half::of);
            halves.collect::<Result<Vec<_>, _>>().map_err(Failure::from)
        });
        let halves = match halves {
            Ok(halves) => halves,
            Err(failure) => return replier.finish(Err(failure)),
        };
        let examination = Examination {
            loader: self.loader.clone(),
            probe: self.probe.clone(),
            store: Arc::clone(&self.store),
            pins: self.pins.root().to_owned(),
            home: Arc::clone(&self.home),
            migrate_req: self.holders.configured(),
            on_behalf_of: match scope {
                Scope::All => None,
                Scope::OwnedBy(uid) => Some(Uid(uid)),
            },
        };
        self.beside.run(move || {
            replier.finish(Ok(Reply::Doctor(examination.make(halves))));
        });
    }
}

/// The findings of the machine alone, with this process's own privileges: for a daemon that is not
/// reachable. `bpffs` is where the daemon would pin.
#[must_use]
pub fn examine_machine(bpffs: &Path) -> wire::Doctor {
    let mut findings = match Loader::from_environment(LogLevel::Off) {
        Ok(loader) => machine::judge(&machine::examine(
            &loader,
            bpffs,
            &Probe::new(loader.clone()),
            None,
        )),
        Err(error) => vec![Finding::error("program", crate::chain::chain(&error))],
    };
    findings.extend(namespace::judge(&namespace::examine_own()));
    by_weight(findings)
}

struct Examination {
    loader: Loader,
    probe: Probe,
    store: Arc<Store>,
    /// The directory of the pins.
    pins: PathBuf,
    /// The daemon's network namespace.
    home: Arc<Netns>,
    migrate_req: MigrateReq,
    on_behalf_of: Option<Uid>,
}

impl Examination {
    fn make(&self, halves: Vec<Half>) -> wire::Doctor {
        let mut findings = machine::judge(&machine::examine(
            &self.loader,
            &self.pins,
            &self.probe,
            Some(self.store.has_room()),
        ));
        for facts in self.namespaces(&halves) {
            findings.extend(namespace::judge(&facts));
        }
        let supported = migrate_req::supported().unwrap_or_default();
        findings.extend(namespace::judge_setting(self.migrate_req, supported));
        for half in halves {
            findings.extend(service::judge(&service::examine(half, self.on_behalf_of)));
        }
        by_weight(findings)
    }

    /// The daemon's own, and those that the services are in, each once.
    fn namespaces(&self, halves: &[Half]) -> Vec<namespace::Facts> {
        let mut seen = HashSet::from([self.home.identity().ok()]);
        let mut facts = vec![namespace::examine(&self.home, None)];
        for half in halves {
            if seen.insert(half.netns.identity().ok()) {
                facts.push(namespace::examine(&half.netns, half.netns_path()));
            }
        }
        facts
    }
}
