//! A service's programs on its groups, through whichever of its listeners is still there.

use std::{
    collections::{BTreeSet, HashMap},
    os::fd::AsFd,
};

use super::{inspect, managed::Managed};
use crate::{
    api::wire::Failure,
    domain::SocketCookie,
    steering::{GroupMaps, SteeringError},
    sys::passed::Passed,
};

/// Attaches the programs of a service that an earlier daemon left: they may have been renewed since, or
/// that daemon was killed while it removed the service, and some of them are off already. The kernel
/// exchanges a group's program in one step, also for itself (`reuseport_attach_prog`,
/// <https://elixir.bootlin.com/linux/v6.18/source/net/core/sock_reuseport.c>).
pub(super) fn restore(managed: &Managed) -> Result<(), Failure> {
    Ok(Members::of(managed)?.attach(managed)?)
}

/// A listener of a registered instance for each group that still has one. A group without one is gone,
/// or has only sockets that the kernel's hash then chooses among anyway.
pub(super) struct Members(Vec<(usize, Passed)>);

impl Members {
    /// Duplicates of them.
    pub(super) fn of(managed: &Managed) -> Result<Self, Failure> {
        let state = &managed.state;
        let mut left: BTreeSet<usize> = (0..state.groups.len()).collect();
        let mut members = Vec::new();
        for (generation, instance) in &state.instances {
            if left.is_empty() {
                break;
            }
            let group_of: HashMap<SocketCookie, usize> = state.listeners_of(*generation).collect();
            let cookies = group_of.keys().copied().collect();
            for (cookie, socket) in inspect::duplicates(instance.process, &managed.netns, &cookies)?
            {
                let index = group_of[&cookie];
                if left.remove(&index) {
                    members.push((index, socket));
                }
            }
        }
        Ok(Self(members))
    }

    /// Lets the service's programs steer its groups.
    pub(super) fn attach(&self, managed: &Managed) -> Result<(), SteeringError> {
        let groups = managed.maps.groups();
        let mut members = self.0.iter();
        members.try_for_each(|(index, socket)| groups[*index].attach(socket.as_fd()))
    }

    /// Takes the programs off their groups.
    pub(super) fn detach(&self) -> Result<(), SteeringError> {
        let mut members = self.0.iter();
        members.try_for_each(|(_, socket)| GroupMaps::detach(socket.as_fd()))
    }
}
