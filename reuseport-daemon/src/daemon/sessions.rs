//! Counting sessions: the established connections of an instance's processes on its service's ports.

use std::{collections::BTreeSet, sync::Arc};

use thiserror::Error;
use tokio::task::JoinError;

use super::managed::Managed;
use crate::{
    domain::{InstanceState, ProcessId, Service},
    sys::{
        netns::{Netns, NetnsError},
        process::{Process, ProcessError, count_held, descendants, unless_ended},
        sock_diag::{SockDiag, SockDiagError},
    },
};

/// Sessions that cannot be counted.
#[derive(Debug, Error)]
pub(super) enum CountError {
    /// The network namespace.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The kernel's list of sockets.
    #[error(transparent)]
    SockDiag(#[from] SockDiagError),
    /// A process.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The thread that counted has panicked.
    #[error("the count broke off")]
    Broken(#[source] JoinError),
}

/// The instances that a service has moved away from, and where their sessions are.
#[derive(Clone, Debug)]
pub(super) struct Old {
    netns: Arc<Netns>,
    ports: BTreeSet<u16>,
    processes: Vec<ProcessId>,
    /// The processes of every instance.
    leaders: Vec<u32>,
}

impl Old {
    /// Those that are being drained or retired.
    pub(super) fn of(managed: &Managed) -> Self {
        let state = &managed.state;
        let old = [InstanceState::Draining, InstanceState::Retired]
            .into_iter()
            .flat_map(|it| state.in_state(it))
            .map(|generation| state.instances[&generation].process);
        Self {
            netns: Arc::clone(&managed.netns),
            ports: ports(state),
            processes: old.collect(),
            leaders: state.instances.values().map(|it| it.process.pid).collect(),
        }
    }

    /// Their processes.
    pub(super) fn processes(&self) -> &[ProcessId] {
        &self.processes
    }

    /// How many sessions they have, all together. A process that has ended has none.
    pub(super) fn count(&self) -> Result<u64, CountError> {
        let diag = self.netns.enter(SockDiag::open)??;
        let sessions = open_sessions(&diag, &self.ports)?;
        let mut count = 0;
        for process in &self.processes {
            if let Some(_alive) = unless_ended(Process::reopen(*process))? {
                count += held_by(process.pid, &self.leaders, &sessions)?;
            }
        }
        Ok(count)
    }
}

/// The ports of a service.
fn ports(service: &Service) -> BTreeSet<u16> {
    let addresses = service.definition.addresses.iter();
    addresses.map(|it| it.socket.port()).collect()
}

/// The sessions on these ports, whoever has them, in ascending order.
fn open_sessions(diag: &SockDiag, ports: &BTreeSet<u16>) -> Result<Vec<u32>, SockDiagError> {
    let mut sessions = Vec::new();
    for port in ports {
        sessions.append(&mut diag.sessions(*port)?.inodes);
    }
    sessions.sort_unstable();
    Ok(sessions)
}

/// How many of `sessions`, in ascending order, an instance has: those of its process and of the
/// descendants that are not another instance's. `leaders` are the processes of all instances: nginx
/// upgraded by `USR2` is its predecessor's child.
pub(super) fn held_by(pid: u32, leaders: &[u32], sessions: &[u32]) -> Result<u64, ProcessError> {
    if sessions.is_empty() {
        return Ok(0);
    }
    let mut family: BTreeSet<u32> = descendants(pid)?.into_iter().collect();
    for other in leaders {
        if family.remove(other) {
            for theirs in descendants(*other)? {
                family.remove(&theirs);
            }
        }
    }
    let family: Vec<u32> = family.into_iter().chain([pid]).collect();
    count_held(&family, sessions)
}

#[cfg(test)]
mod tests {
    use std::{
        os::{fd::OwnedFd, unix::net::UnixStream},
        process::{Command, Stdio},
    };

    use rustix::fs::fstat;

    use super::*;

    #[test]
    fn a_child_that_is_an_instance_counts_for_itself() {
        // It waits for the end of its input, which is what stands for a session.
        let (session, peer) = UnixStream::pair().expect("a pair");
        let inode = fstat(&session).expect("fstat").st_ino;
        let sessions = [u32::try_from(inode).expect("a socket's inode")];
        let mut child = Command::new("cat")
            .stdin(Stdio::from(OwnedFd::from(session)))
            .stdout(Stdio::null())
            .spawn()
            .expect("cat");
        let (us, them) = (std::process::id(), child.id());
        let held = |pid, leaders: &[u32]| held_by(pid, leaders, &sessions).expect("counted");
        assert_eq!(held(us, &[us]), 1);
        assert_eq!(held(us, &[us, them]), 0);
        assert_eq!(held(them, &[us, them]), 1);
        drop(peer);
        child.wait().expect("wait");
    }
}
