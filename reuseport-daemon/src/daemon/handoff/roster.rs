//! Who receives for whom.

use std::collections::BTreeSet;

use crate::{
    domain::{InstanceState, ProcessId, Service},
    sys::process::lineage,
};

/// The processes of a service's instances.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Roster {
    instances: BTreeSet<ProcessId>,
    serving: BTreeSet<ProcessId>,
}

impl Roster {
    pub(super) fn of(service: &Service) -> Self {
        let instances = service.instances.values();
        let alive = instances.filter(|it| it.state != InstanceState::Gone);
        let serving = service.in_state(InstanceState::Serving);
        Self {
            instances: alive.map(|it| it.process).collect(),
            serving: serving
                .map(|generation| service.instances[&generation].process)
                .collect(),
        }
    }

    /// The same, with the process of an instance that is about to be registered.
    pub(super) fn with(mut self, instance: ProcessId) -> Self {
        self.instances.insert(instance);
        self
    }

    /// The instance that a process belongs to: the nearest one that it is or descends from. nginx
    /// upgraded by `USR2` is its predecessor's child.
    pub(super) fn instance_of(&self, process: ProcessId) -> Option<ProcessId> {
        let mut lineage = lineage(process).into_iter();
        lineage.find(|it| self.instances.contains(it))
    }

    /// Whether a process belongs to an instance that serves.
    pub(super) fn serves(&self, process: ProcessId) -> bool {
        let instance = self.instance_of(process);
        instance.is_some_and(|it| self.serving.contains(&it))
    }
}
