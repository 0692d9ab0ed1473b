//! `status`: what the driver knows, joined with what the kernel says of sockets and processes.

use std::{collections::BTreeSet, sync::Arc};

use tracing::warn;

use super::{
    counters::outcomes,
    driver::Driver,
    handoff::Handoff,
    managed::Managed,
    overview::{Overview, OverviewError, Places, places},
    sessions::held_by,
};
use crate::{
    api::{
        Replier, Scope,
        wire::{
            Failure, GroupStatus, InstanceStatus, ListenerStatus, MigrationStatus, Reply,
            ServiceStatus, Status,
        },
    },
    chain::chain,
    domain::{Generation, Group, Instance, InstanceState, ProcessId},
    steering::{GroupMaps, SteeringError},
    sys::{netns::Netns, process::ProcessError, sock_diag::Place},
};

/// A service's status as far as the driver knows it, and where to look for the rest.
struct Half {
    status: ServiceStatus,
    netns: Arc<Netns>,
    places: BTreeSet<Place>,
    handoff: Arc<Handoff>,
    /// In the order of the status's instances.
    processes: Vec<ProcessId>,
}

impl Driver {
    /// Answers with the status of the services that the call may be about. The maps are read here,
    /// the rest beside the driver.
    pub(super) fn report_status(&self, scope: Scope, name: Option<&str>, replier: Replier) {
        let halves = self.services(scope, name).and_then(|services| {
            let halves = services.into_iter().map(half);
            halves.collect::<Result<Vec<_>, _>>().map_err(Failure::from)
        });
        match halves {
            Err(failure) => replier.finish(Err(failure)),
            Ok(halves) => {
                self.beside.run(move || {
                    let services = complete(halves);
                    replier.finish(Ok(Reply::Status(Status { services })));
                });
            }
        }
    }
}

fn half(managed: &Managed) -> Result<Half, SteeringError> {
    let state = &managed.state;
    let groups = state.groups.iter().zip(managed.maps.groups());
    let definition = &state.definition;
    let label = |generation| state.label(generation).to_string();
    Ok(Half {
        netns: Arc::clone(&managed.netns),
        places: places(state),
        handoff: Arc::clone(&managed.handoff),
        processes: state.instances.values().map(|it| it.process).collect(),
        status: ServiceStatus {
            name: state.name().to_string(),
            owner: definition.owner.0,
            units: definition.instances.as_ref().map(ToString::to_string),
            netns: definition.netns.clone(),
            generation: state.newest.0,
            groups: groups
                .clone()
                .enumerate()
                .map(|(index, (group, maps))| group_status(managed, index, group, maps))
                .collect::<Result<_, _>>()?,
            instances: state
                .instances
                .iter()
                .map(|(generation, instance)| {
                    let listeners = listeners(*generation, groups.clone())?;
                    Ok(instance_status(*generation, instance, listeners))
                })
                .collect::<Result<_, SteeringError>>()?,
            migration: state.migration.as_ref().map(|migration| MigrationStatus {
                from: migration.from.iter().copied().map(label).collect(),
                to: label(migration.to),
                phase: migration.phase.as_str().to_owned(),
            }),
        },
    })
}

fn group_status(
    managed: &Managed,
    index: usize,
    group: &Group,
    maps: &GroupMaps,
) -> Result<GroupStatus, SteeringError> {
    Ok(GroupStatus {
        listen: group.address.to_string(),
        protocol: "tcp".to_owned(),
        program: maps.kind().as_str().to_owned(),
        outcomes: outcomes(&maps.runs()?),
        slots: managed.state.definition.slots,
        parking: managed.lot.status(&managed.state, index),
    })
}

fn instance_status(
    generation: Generation,
    instance: &Instance,
    listeners: Vec<ListenerStatus>,
) -> InstanceStatus {
    InstanceStatus {
        label: instance.label.to_string(),
        generation: generation.0,
        pid: instance.process.pid,
        state: instance.state.as_str().to_owned(),
        sessions: 0,
        receivers: 0,
        listeners,
    }
}

fn listeners<'a>(
    generation: Generation,
    groups: impl Iterator<Item = (&'a Group, &'a GroupMaps)>,
) -> Result<Vec<ListenerStatus>, SteeringError> {
    let mut listeners = Vec::new();
    for (group, maps) in groups {
        for (slot, listener) in &group.slots {
            if listener.generation == generation {
                listeners.push(ListenerStatus {
                    listen: group.address.to_string(),
                    cookie: listener.cookie.0,
                    slot: slot.0,
                    accept_queue: None,
                    backlog: None,
                    selected: maps.selected(*slot)?,
                });
            }
        }
    }
    Ok(listeners)
}

/// Adds queues, sessions and receivers. What cannot be read stays unknown, and is logged.
fn complete(halves: Vec<Half>) -> Vec<ServiceStatus> {
    let mut all = Places::default();
    let ids: Vec<_> = halves
        .iter()
        .map(|it| all.add(&it.netns, &it.places))
        .collect();
    let seen = all.look();
    let halves = halves.into_iter().zip(ids);
    halves
        .map(|(half, id)| match id {
            Ok(id) => whole(half, seen.get(&id)),
            Err(error) => {
                warn!(error = chain(&error), "cannot read sockets");
                whole(half, None)
            }
        })
        .collect()
}

fn whole(half: Half, seen: Option<&Result<Overview, OverviewError>>) -> ServiceStatus {
    let mut status = half.status;
    for (instance, process) in status.instances.iter_mut().zip(half.processes) {
        instance.receivers = half.handoff.receivers_of(process);
    }
    let service = status.name.clone();
    match seen {
        Some(Ok(overview)) => {
            add_queues(&mut status, overview);
            if let Err(error) = add_sessions(&mut status, &overview.sessions(&half.places)) {
                warn!(service, error = chain(&error), "cannot count sessions");
            }
        }
        Some(Err(error)) => warn!(service, error = chain(error), "cannot read sockets"),
        None => {}
    }
    status
}

fn add_queues(status: &mut ServiceStatus, overview: &Overview) {
    let listeners = status.instances.iter_mut().flat_map(|it| &mut it.listeners);
    for listener in listeners {
        if let Some(queue) = overview.queue(listener.cookie) {
            listener.accept_queue = Some(queue.waiting);
            listener.backlog = Some(queue.backlog);
        }
    }
}

fn add_sessions(status: &mut ServiceStatus, sessions: &[u32]) -> Result<(), ProcessError> {
    let leaders: Vec<u32> = status.instances.iter().map(|it| it.pid).collect();
    let gone = InstanceState::Gone.as_str();
    for instance in status.instances.iter_mut().filter(|it| it.state != gone) {
        instance.sessions = held_by(instance.pid, &leaders, sessions)?;
    }
    Ok(())
}
