//! `status`: what the driver knows, joined with what the kernel says of sockets and processes.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use tracing::warn;

use super::{
    counters::outcomes,
    driver::Driver,
    handoff::Handoff,
    managed::Managed,
    sessions::{held_by, open_sessions, ports},
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
    sys::{
        netns::Netns,
        process::ProcessError,
        sock_diag::{ListenerRow, SockDiag, SockDiagError},
    },
};

/// A service's status as far as the driver knows it, and where to look for the rest.
struct Half {
    status: ServiceStatus,
    netns: Arc<Netns>,
    ports: BTreeSet<u16>,
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
                    let services = halves.into_iter().map(complete).collect();
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
        ports: ports(state),
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
fn complete(half: Half) -> ServiceStatus {
    let Half {
        mut status,
        netns,
        ports,
        handoff,
        processes,
    } = half;
    for (instance, process) in status.instances.iter_mut().zip(processes) {
        instance.receivers = handoff.receivers_of(process);
    }
    match netns.enter(|| read_sockets(&ports)) {
        Ok(Ok((rows, sessions))) => {
            add_queues(&mut status, &rows);
            if let Err(error) = add_sessions(&mut status, &sessions) {
                warn!(
                    service = status.name,
                    error = chain(&error),
                    "cannot count sessions"
                );
            }
        }
        Ok(Err(error)) => {
            warn!(
                service = status.name,
                error = chain(&error),
                "cannot read sockets"
            );
        }
        Err(error) => warn!(
            service = status.name,
            error = chain(&error),
            "cannot read sockets"
        ),
    }
    status
}

fn read_sockets(ports: &BTreeSet<u16>) -> Result<(Vec<ListenerRow>, HashSet<u32>), SockDiagError> {
    let diag = SockDiag::open()?;
    let mut rows = Vec::new();
    for port in ports {
        rows.extend(diag.listeners(Some(*port))?);
    }
    Ok((rows, open_sessions(&diag, ports)?))
}

fn add_queues(status: &mut ServiceStatus, rows: &[ListenerRow]) {
    let rows: HashMap<u64, &ListenerRow> = rows.iter().map(|row| (row.cookie.0, row)).collect();
    let listeners = status.instances.iter_mut().flat_map(|it| &mut it.listeners);
    for listener in listeners {
        if let Some(row) = rows.get(&listener.cookie) {
            listener.accept_queue = Some(row.accept_queue);
            listener.backlog = Some(row.backlog);
        }
    }
}

fn add_sessions(status: &mut ServiceStatus, sessions: &HashSet<u32>) -> Result<(), ProcessError> {
    let leaders: Vec<u32> = status.instances.iter().map(|it| it.pid).collect();
    let gone = InstanceState::Gone.as_str();
    for instance in status.instances.iter_mut().filter(|it| it.state != gone) {
        instance.sessions = held_by(instance.pid, &leaders, sessions)?;
    }
    Ok(())
}
