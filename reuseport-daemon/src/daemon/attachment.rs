//! A service's programs on its groups, through whichever of its listeners is still there.

use std::{
    collections::{BTreeSet, HashMap},
    os::fd::{AsFd, BorrowedFd},
};

use super::{inspect, managed::Managed};
use crate::{
    api::wire::Failure,
    domain::SocketCookie,
    steering::{GroupMaps, SteeringError},
};

/// Attaches the programs of a service that an earlier daemon left: they may have been renewed since, or
/// that daemon was killed while it removed the service, and some of them are off already. The kernel
/// exchanges a group's program in one step, also for itself (`reuseport_attach_prog`,
/// <https://elixir.bootlin.com/linux/v6.18/source/net/core/sock_reuseport.c>).
pub(super) fn restore(managed: &Managed) -> Result<(), Failure> {
    let groups = managed.maps.groups();
    each_group(managed, |index, socket| groups[index].attach(socket))
}

/// Takes the program off every group that still has a listener of a registered instance. A group
/// without one is gone, or has only sockets that the kernel's hash then chooses among anyway.
pub(super) fn remove(managed: &Managed) -> Result<(), Failure> {
    each_group(managed, |_, socket| GroupMaps::detach(socket))
}

fn each_group(
    managed: &Managed,
    mut change: impl FnMut(usize, BorrowedFd<'_>) -> Result<(), SteeringError>,
) -> Result<(), Failure> {
    let state = &managed.state;
    let mut left: BTreeSet<usize> = (0..state.groups.len()).collect();
    for (generation, instance) in &state.instances {
        if left.is_empty() {
            break;
        }
        let group_of: HashMap<SocketCookie, usize> = state.listeners_of(*generation).collect();
        let cookies = group_of.keys().copied().collect();
        for (cookie, socket) in inspect::duplicates(instance.process, &managed.netns, &cookies)? {
            let index = group_of[&cookie];
            if left.remove(&index) {
                change(index, socket.as_fd())?;
            }
        }
    }
    Ok(())
}
