//! Looking at a process, or at what it passed, for a service's listeners. All of it reads; nothing
//! of a server changes here.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    io,
    os::{fd::AsFd, unix::fs::MetadataExt},
    sync::Arc,
};

use thiserror::Error;

use super::units;
use crate::{
    domain::{
        Address, Definition, Found, Label, ListenerFault, Placed, ProcessId, Refusal, SocketCookie,
        UnitName, of_passed, of_process, unfit,
    },
    sys::{
        cgroup::CgroupError,
        netns::{Netns, NetnsError},
        passed::{Closer, Passed},
        process::{Ended, Process, ProcessError, unless_ended},
        signal::SignalError,
        sock_diag::{ListenerRow, SockDiag, SockDiagError},
        socket::{self, SocketError, SocketFacts, TcpFacts},
    },
};

/// Duplicates of a server's listeners, for as long as one operation needs them.
pub(super) type Sockets = HashMap<SocketCookie, Passed>;

/// A process with listeners that are fit for the service, and duplicates of them.
#[derive(Debug)]
pub(super) struct Inspection {
    /// The process.
    pub process: Process,
    /// Its listeners, by group.
    pub listeners: Vec<Placed>,
    /// The listeners themselves.
    pub sockets: Sockets,
    /// What to call it unless somebody says otherwise.
    pub label: Option<Label>,
}

/// Why a process could not be looked at.
#[derive(Debug, Error)]
pub(super) enum InspectError {
    /// It was looked at, and is not fit.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The process.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The kernel's list of sockets.
    #[error(transparent)]
    SockDiag(#[from] SockDiagError),
    /// The control groups.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// A descriptor.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The network namespace.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// A number that is no signal.
    #[error(transparent)]
    Signal(#[from] SignalError),
    /// A listener could not be shut down.
    #[error("shutdown failed")]
    Shutdown(#[source] io::Error),
    /// An unprivileged caller named somebody else's process.
    #[error("pid {pid} does not run as uid {uid}")]
    OthersProcess {
        /// The process.
        pid: u32,
        /// The caller.
        uid: u32,
    },
}

impl Ended for InspectError {
    fn is_end(&self) -> bool {
        matches!(self, Self::Process(error) if error.is_end())
    }
}

/// A process that a call needs a look at.
#[derive(Debug)]
pub(super) enum Look {
    /// Find the listeners in the process.
    Pid {
        /// The process.
        pid: u32,
        /// The unprivileged caller, who may only name a process of its own.
        on_behalf_of: Option<u32>,
        /// What closes the duplicates.
        closer: Arc<Closer>,
    },
    /// Find the listeners in the one process of a unit that has them.
    Unit {
        /// The unit.
        unit: UnitName,
        /// As above.
        on_behalf_of: Option<u32>,
        /// What closes the duplicates.
        closer: Arc<Closer>,
    },
    /// These are the listeners.
    Passed {
        /// The process that passed them.
        process: ProcessId,
        /// The descriptors.
        descriptors: Vec<Passed>,
    },
}

impl Look {
    /// Takes the look. It may take long, for a process with many descriptors.
    pub(super) fn take(
        self,
        definition: &Definition,
        netns: &Netns,
    ) -> Result<Inspection, InspectError> {
        match self {
            Self::Pid {
                pid,
                on_behalf_of,
                closer,
            } => by_pid(definition, netns, pid, on_behalf_of, &closer),
            Self::Unit {
                unit,
                on_behalf_of,
                closer,
            } => units::by_name(definition, netns, &unit, on_behalf_of, &closer),
            Self::Passed {
                process,
                descriptors,
            } => by_descriptors(definition, netns, process, descriptors),
        }
    }
}

/// Finds a service's listeners among all that `pid` has open. `on_behalf_of` is an unprivileged
/// caller, who may only name a process of its own.
pub(super) fn by_pid(
    definition: &Definition,
    netns: &Netns,
    pid: u32,
    on_behalf_of: Option<u32>,
    closer: &Arc<Closer>,
) -> Result<Inspection, InspectError> {
    if pid == std::process::id() {
        return Err(Refusal::OwnProcess(pid).into());
    }
    let process = Process::open(pid)?;
    if let Some(uid) = on_behalf_of
        && owner(pid) != Some(uid)
    {
        return Err(InspectError::OthersProcess { pid, uid });
    }
    let open = by_inode(&process)?;
    let mut sockets = Sockets::new();
    let (mut found, mut elsewhere) = (Vec::new(), Vec::new());
    for row in listeners(netns)? {
        let Some(fd) = open.get(&row.inode) else {
            continue;
        };
        if !definition.addresses.contains(&row.address) {
            elsewhere.push(row.address);
            continue;
        }
        // Closed meanwhile, or its number given to something else: then it is no listener any more.
        let Some((socket, facts)) = duplicate(&process, *fd, row.cookie, closer)? else {
            continue;
        };
        found.push(as_found(&row.address, &facts));
        sockets.insert(row.cookie, socket);
    }
    let listeners = of_process(definition, pid, &found, &elsewhere)?;
    Ok(Inspection {
        process,
        listeners,
        sockets,
        label: None,
    })
}

/// Checks the listeners that a process passed. Its connection may have outlived it, and its pid may
/// be another one's by now, which must not become an instance for that.
fn by_descriptors(
    definition: &Definition,
    netns: &Netns,
    process: ProcessId,
    passed: Vec<Passed>,
) -> Result<Inspection, InspectError> {
    let process = Process::reopen(process)?;
    let here: HashSet<SocketCookie> = listeners(netns)?.iter().map(|it| it.cookie).collect();
    let mut sockets = Sockets::new();
    let mut found = Vec::new();
    for socket in passed {
        let facts = socket::facts(socket.as_fd())?;
        let (address, facts) = listening(facts).map_err(|fault| unfit(definition, None, fault))?;
        if !here.contains(&facts.cookie) {
            return Err(unfit(definition, Some(&address), ListenerFault::OtherNetns).into());
        }
        found.push(as_found(&address, &facts));
        sockets.insert(facts.cookie, socket);
    }
    let listeners = of_passed(definition, &found)?;
    Ok(Inspection {
        process,
        listeners,
        sockets,
        label: None,
    })
}

/// What listens at a service's ports. It is read twice, since a long list is read in parts, and goes on
/// by a count that is too high where something has gone meanwhile (`inet_diag_dump_icsk`,
/// <https://elixir.bootlin.com/linux/v6.12/source/net/ipv4/inet_diag.c>).
pub(super) fn open_listeners(
    definition: &Definition,
    netns: &Netns,
) -> Result<BTreeSet<SocketCookie>, InspectError> {
    let diag = netns.enter(SockDiag::open)??;
    let mut found = BTreeSet::new();
    for _ in 0..2 {
        for address in &definition.addresses {
            let here = diag.listeners(Some(address.socket.port()))?;
            found.extend(here.into_iter().map(|row| row.cookie));
        }
    }
    Ok(found)
}

/// Duplicates of those listeners of a process that `cookies` names and that it still has; one that has
/// ended has none. None of its other descriptors is touched: a session that is closed while somebody
/// else has a duplicate is closed by whoever is last.
pub(super) fn duplicates(
    process: ProcessId,
    netns: &Netns,
    cookies: &HashSet<SocketCookie>,
) -> Result<Sockets, InspectError> {
    let process = Process::reopen(process).map_err(InspectError::from);
    let sockets = process.and_then(|it| duplicates_of(&it, netns, cookies));
    Ok(unless_ended(sockets)?.unwrap_or_default())
}

fn duplicates_of(
    process: &Process,
    netns: &Netns,
    cookies: &HashSet<SocketCookie>,
) -> Result<Sockets, InspectError> {
    let mut wanted: HashMap<u32, SocketCookie> = listeners(netns)?
        .into_iter()
        .filter(|row| cookies.contains(&row.cookie))
        .map(|row| (row.inode, row.cookie))
        .collect();
    let mut sockets = Sockets::new();
    let closer = Arc::default();
    for (fd, inode) in process.open_sockets()? {
        let Some(cookie) = wanted.get(&inode) else {
            continue;
        };
        if let Some((socket, _)) = duplicate(process, fd, *cookie, &closer)? {
            sockets.insert(*cookie, socket);
            wanted.remove(&inode);
        }
    }
    Ok(sockets)
}

/// Duplicates of those listeners that a process holds. Unlike [`duplicates`], it touches none of the
/// process's other sockets.
pub(super) fn held<'a>(
    process: &Process,
    listeners: impl Iterator<Item = &'a ListenerRow>,
    closer: &Arc<Closer>,
) -> Result<Sockets, InspectError> {
    let open = by_inode(process)?;
    let mut sockets = Sockets::new();
    for row in listeners {
        if let Some(fd) = open.get(&row.inode)
            && let Some((socket, _)) = duplicate(process, *fd, row.cookie, closer)?
        {
            sockets.insert(row.cookie, socket);
        }
    }
    Ok(sockets)
}

/// A process's sockets: descriptors by inode.
fn by_inode(process: &Process) -> Result<HashMap<u32, i32>, ProcessError> {
    let sockets = process.open_sockets()?.into_iter();
    Ok(sockets.map(|(fd, inode)| (inode, fd)).collect())
}

/// Every listening TCP socket of the namespace.
pub(super) fn listeners(netns: &Netns) -> Result<Vec<ListenerRow>, InspectError> {
    Ok(netns.enter(SockDiag::open)??.listeners(None)?)
}

fn duplicate(
    process: &Process,
    fd: i32,
    cookie: SocketCookie,
    closer: &Arc<Closer>,
) -> Result<Option<(Passed, TcpFacts)>, InspectError> {
    let Some(socket) = descriptor(process, fd, closer)? else {
        return Ok(None);
    };
    match socket::facts(socket.as_fd())? {
        SocketFacts::Tcp(facts) if facts.cookie == cookie => Ok(Some((socket, facts))),
        SocketFacts::Tcp(_) | SocketFacts::Other(_) | SocketFacts::NotASocket => Ok(None),
    }
}

/// A duplicate of a descriptor, or none where it has been closed meanwhile.
fn descriptor(
    process: &Process,
    fd: i32,
    closer: &Arc<Closer>,
) -> Result<Option<Passed>, ProcessError> {
    match process.descriptor(fd) {
        Ok(socket) => Ok(Some(Passed::new(socket, closer))),
        Err(ProcessError::NoDescriptor { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn listening(facts: SocketFacts) -> Result<(Address, TcpFacts), ListenerFault> {
    match facts {
        SocketFacts::NotASocket => Err(ListenerFault::NotASocket),
        SocketFacts::Other(kind) => Err(ListenerFault::NotTcp(kind)),
        SocketFacts::Tcp(facts) => match &facts.address {
            Some(address) if facts.listening => Ok((address.clone(), facts)),
            Some(_) | None => Err(ListenerFault::NotListening),
        },
    }
}

fn as_found(address: &Address, facts: &TcpFacts) -> Found {
    Found {
        cookie: facts.cookie,
        address: address.clone(),
        owner: facts.owner,
        reuseport: facts.reuseport,
    }
}

/// The user that a process runs as.
pub(super) fn owner(pid: u32) -> Option<u32> {
    Some(std::fs::metadata(format!("/proc/{pid}")).ok()?.uid())
}
