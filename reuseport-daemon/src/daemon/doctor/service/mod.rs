//! What the kernel says of a service's sockets and processes, beside what the daemon knows.

mod instances;
mod members;
mod parking;
mod settings;
mod strangers;
mod traffic;

#[cfg(test)]
mod fixture;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use thiserror::Error;

use self::parking::Parking;
use super::{finding::Finding, machine};
use crate::{
    chain::chain,
    daemon::managed::Managed,
    domain::{
        Generation, Group, Instance, InstanceState, ProcessId, Refusal, Service, SocketCookie, Uid,
    },
    steering::{ProgramKind, Runs, SteeringError},
    sys::{
        netns::Netns,
        process::{Process, holders, unless_ended},
        sock_diag::{ListenerRow, SockDiag, SockDiagError},
        sysctl,
    },
};

/// A service as far as the driver knows it, and where to look for the rest.
pub(super) struct Half {
    state: Service,
    programs: Vec<Program>,
    /// In the order of the groups; nothing where the service does not park.
    parking: Vec<Option<Parking>>,
    /// The daemon's own listeners in the groups.
    own: BTreeSet<SocketCookie>,
    pub(super) netns: Arc<Netns>,
}

/// What was found out of a service.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    state: Service,
    /// In the order of the groups.
    programs: Vec<Program>,
    /// Likewise; nothing where the service does not park.
    parking: Vec<Option<Parking>>,
    sockets: Result<Sockets, String>,
    /// Whether the daemon can get at the processes of instances that are not gone.
    access: BTreeMap<Generation, Access>,
    /// Standby instances that a migration to would be refused, for what their listeners are set to.
    mismatches: BTreeMap<Generation, Refusal>,
}

/// A group's program.
#[derive(Clone, Copy, Debug)]
struct Program {
    kind: ProgramKind,
    runs: Runs,
}

/// Listening sockets in the service's network namespace.
#[derive(Clone, Debug, Default)]
struct Sockets {
    /// Those on the service's ports.
    rows: Vec<ListenerRow>,
    /// Who holds those of them that nobody registered: pids by inode.
    holders: BTreeMap<u32, Vec<u32>>,
    /// `net.core.somaxconn`
    somaxconn: Option<u64>,
}

/// Whether a process's sockets can be seen and duplicated.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Access {
    Granted,
    /// It has ended.
    Ended,
    Denied(String),
}

#[derive(Debug, Error)]
enum ReadError {
    #[error("cannot list the sockets")]
    SockDiag(#[from] SockDiagError),
    #[error("cannot look through the processes")]
    Processes(#[source] std::io::Error),
}

impl Half {
    /// What the driver knows of a service.
    pub(super) fn of(managed: &Managed) -> Result<Self, SteeringError> {
        let programs = managed.maps.groups().iter().map(|maps| {
            Ok(Program {
                kind: maps.kind(),
                runs: maps.runs()?,
            })
        });
        Ok(Self {
            state: managed.state.clone(),
            programs: programs.collect::<Result<_, SteeringError>>()?,
            parking: (0..managed.state.groups.len())
                .map(|group| {
                    Some(Parking {
                        status: managed.lot.status(&managed.state, group)?,
                        trouble: managed.lot.trouble(group).map(ToOwned::to_owned),
                        kept: managed.lot.is_kept(group),
                    })
                })
                .collect(),
            own: managed.lot.cookies().collect(),
            netns: Arc::clone(&managed.netns),
        })
    }

    /// Path of its network namespace; nothing for the daemon's.
    pub(super) fn netns_path(&self) -> Option<&str> {
        self.state.definition.netns.as_deref()
    }
}

/// Finds out the rest. `on_behalf_of` is an unprivileged caller, who is not told which processes
/// hold sockets of other users.
pub(super) fn examine(half: Half, on_behalf_of: Option<Uid>) -> Facts {
    let Half {
        state,
        programs,
        parking,
        own,
        netns,
    } = half;
    let sockets = match netns.enter(|| read_sockets(&state, &own, on_behalf_of)) {
        Ok(Ok(sockets)) => Ok(sockets),
        Ok(Err(error)) => Err(chain(&error)),
        Err(error) => Err(chain(&error)),
    };
    let living = state.instances.iter();
    let access = living
        .filter(|(_, instance)| instance.state != InstanceState::Gone)
        .map(|(generation, instance)| (*generation, access(instance.process)))
        .collect();
    Facts {
        mismatches: settings::examine(&state, &netns),
        state,
        programs,
        parking,
        sockets,
        access,
    }
}

/// Findings from facts: pure.
pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = instances::judge(facts);
    findings.extend(settings::judge(facts));
    match &facts.sockets {
        Err(why) => findings.push(Finding::error(facts.state.name().to_string(), why.clone())),
        Ok(sockets) => {
            for (group, program) in facts.state.groups.iter().zip(&facts.programs) {
                findings.extend(members::judge(facts, sockets, group, program));
                findings.extend(strangers::judge(facts, sockets, group));
            }
            findings.extend(traffic::judge_queues(facts, sockets));
        }
    }
    for (group, program) in facts.state.groups.iter().zip(&facts.programs) {
        findings.extend(parking::judge(facts, group));
        findings.extend(traffic::judge_outcomes(facts, group, &program.runs));
    }
    findings
}

fn read_sockets(
    state: &Service,
    own: &BTreeSet<SocketCookie>,
    on_behalf_of: Option<Uid>,
) -> Result<Sockets, ReadError> {
    let diag = SockDiag::open()?;
    let addresses = state.definition.addresses.iter();
    let ports: BTreeSet<u16> = addresses.map(|it| it.socket.port()).collect();
    let mut rows = Vec::new();
    for port in ports {
        rows.extend(diag.listeners(Some(port))?);
    }
    rows.retain(|row| !own.contains(&row.cookie));
    let wanted: BTreeSet<u32> = strangers::all(state, &rows)
        .filter(|row| on_behalf_of.is_none_or(|uid| uid.0 == row.uid))
        .map(|row| row.inode)
        .collect();
    Ok(Sockets {
        holders: holders(&wanted).map_err(ReadError::Processes)?,
        somaxconn: sysctl::number("net.core.somaxconn").ok().flatten(),
        rows,
    })
}

fn access(process: ProcessId) -> Access {
    let looked = Process::reopen(process).and_then(|process| {
        process.open_sockets()?;
        machine::may_duplicate(&process)
    });
    match unless_ended(looked) {
        Ok(Some(())) => Access::Granted,
        Ok(None) => Access::Ended,
        Err(error) => Access::Denied(chain(&error)),
    }
}

impl Facts {
    /// How an instance is called in a finding.
    fn name_of(&self, generation: Generation) -> String {
        let label = self.state.label(generation);
        match self.state.instances.get(&generation) {
            Some(Instance { process, .. }) => format!("{label} (pid {})", process.pid),
            None => label.to_string(),
        }
    }

    fn subject(&self, group: &Group) -> String {
        format!("{} at {}", self.state.name(), group.address)
    }

    /// A group's parking listener, if the service parks.
    fn parking_of(&self, group: &Group) -> Option<&Parking> {
        let groups = self.state.groups.iter().zip(&self.parking);
        let ours = groups
            .into_iter()
            .find(|(it, _)| it.address == group.address);
        ours.and_then(|(_, parking)| parking.as_ref())
    }

    /// Whether connections to the group wait where nobody serves.
    fn parks(&self, group: &Group) -> bool {
        self.parking_of(group).is_some_and(|it| it.status.open)
    }

    fn has_ended(&self, generation: Generation) -> bool {
        self.access.get(&generation) == Some(&Access::Ended)
    }
}

impl Sockets {
    fn by_cookie(&self) -> HashMap<SocketCookie, &ListenerRow> {
        self.rows.iter().map(|row| (row.cookie, row)).collect()
    }
}
