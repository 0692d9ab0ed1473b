//! Looking into a unit for a service's listeners.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use crate::{
    daemon::inspect::{self, InspectError, Inspection},
    domain::{Definition, Holder, ProcessId, Refusal, SocketCookie, UnitName, choose},
    sys::{
        cgroup::{Cgroup, Cgroups},
        netns::Netns,
        passed::Closer,
        process::{Process, ProcessError, lineage},
        sock_diag::ListenerRow,
    },
};

/// What a look into a unit of a pattern has shown.
#[derive(Debug)]
pub(super) enum Looked {
    /// It runs no process.
    Gone,
    /// One of its processes is an instance, and there are no listeners that the service does not know.
    Known,
    /// It does not listen.
    Silent,
    /// It does.
    Listening(Box<Inspection>),
}

/// Finds a service's listeners in the one process of a unit that has them. `on_behalf_of` is an
/// unprivileged caller, for whom only its own processes are looked at.
pub(in crate::daemon) fn by_name(
    definition: &Definition,
    netns: &Netns,
    unit: &UnitName,
    on_behalf_of: Option<u32>,
    closer: &Arc<Closer>,
) -> Result<Inspection, InspectError> {
    // Every one of that name: a user may run a unit that the system has too.
    let groups = Cgroups::find()?.named(|it| it == unit.as_str())?;
    within(definition, netns, unit, &groups, on_behalf_of, closer)
}

fn within(
    definition: &Definition,
    netns: &Netns,
    unit: &UnitName,
    groups: &[Cgroup],
    on_behalf_of: Option<u32>,
    closer: &Arc<Closer>,
) -> Result<Inspection, InspectError> {
    let pids = processes(groups)?;
    if pids.is_empty() {
        return Err(Refusal::UnknownUnit(unit.clone()).into());
    }
    let (own, others): (BTreeSet<u32>, BTreeSet<u32>) = pids
        .into_iter()
        .partition(|pid| on_behalf_of.is_none() || inspect::owner(*pid) == on_behalf_of);
    let found = holders(&own, &at(definition, netns)?)?;
    let Some(process) = choose(unit, &found)? else {
        return Err(match (on_behalf_of, others.first()) {
            (Some(uid), Some(pid)) => InspectError::OthersProcess { pid: *pid, uid },
            (Some(_) | None, _) => Refusal::UnitNotListening {
                unit: unit.clone(),
                addresses: definition.addresses.clone(),
            }
            .into(),
        });
    };
    let found = inspect::by_pid(definition, netns, process.pid, on_behalf_of, closer)?;
    if found.process.id() != process {
        return Err(Refusal::NoProcess(process.pid).into());
    }
    Ok(Inspection {
        label: unit.label(),
        ..found
    })
}

/// Looks whether a unit has something to register. Where no listener is there that is not among
/// `known`, which costs one question to the kernel, no process is looked into.
pub(super) fn at_unit(
    definition: &Definition,
    netns: &Netns,
    unit: &UnitName,
    group: Cgroup,
    known: &HashSet<SocketCookie>,
    instances: &HashSet<ProcessId>,
) -> Result<Looked, InspectError> {
    let groups = [group];
    let pids = processes(&groups)?;
    if pids.is_empty() {
        return Ok(Looked::Gone);
    }
    if at(definition, netns)?
        .iter()
        .all(|it| known.contains(&it.cookie))
    {
        let is_instance = |pid: &u32| {
            let process = Process::open(*pid);
            process.is_ok_and(|it| instances.contains(&it.id()))
        };
        return Ok(if pids.iter().any(is_instance) {
            Looked::Known
        } else {
            Looked::Silent
        });
    }
    match within(definition, netns, unit, &groups, None, &Arc::default()) {
        Ok(found) => Ok(Looked::Listening(Box::new(found))),
        Err(InspectError::Refused(Refusal::UnitNotListening { .. })) => Ok(Looked::Silent),
        Err(InspectError::Refused(Refusal::UnknownUnit(_))) => Ok(Looked::Gone),
        Err(error) => Err(error),
    }
}

fn processes(groups: &[Cgroup]) -> Result<BTreeSet<u32>, InspectError> {
    let mut pids = BTreeSet::new();
    for group in groups {
        pids.append(&mut group.processes()?);
    }
    Ok(pids)
}

/// Who listens at the service's addresses.
fn at(definition: &Definition, netns: &Netns) -> Result<Vec<ListenerRow>, InspectError> {
    let mut rows = inspect::listeners(netns)?;
    rows.retain(|it| definition.addresses.contains(&it.address));
    Ok(rows)
}

fn holders(pids: &BTreeSet<u32>, rows: &[ListenerRow]) -> Result<Vec<Holder>, InspectError> {
    let inodes: HashSet<u32> = rows.iter().map(|it| it.inode).collect();
    let mut found = Vec::new();
    for pid in pids {
        let sockets = Process::open(*pid).and_then(|it| Ok((it.id(), it.open_sockets()?)));
        let (process, sockets) = match sockets {
            Ok(sockets) => sockets,
            // It has ended meanwhile.
            Err(ProcessError::NoProcess(_)) => continue,
            Err(error) => return Err(error.into()),
        };
        let listeners: BTreeSet<u32> = sockets
            .into_iter()
            .map(|(_, inode)| inode)
            .filter(|inode| inodes.contains(inode))
            .collect();
        if !listeners.is_empty() {
            let ancestors = lineage(process).into_iter().skip(1);
            found.push(Holder {
                process,
                listeners,
                ancestors: ancestors.map(|it| it.pid).collect(),
            });
        }
    }
    Ok(found)
}
