//! Waking the acceptors of a service whose kernel does not: see [`crate::domain::Waking`].

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;

use super::{managed::Managed, probe::Probe};
use crate::{
    chain::chain,
    domain::{Address, InstanceState, Occasion, SocketCookie, Waker, Waking, reached_at},
    sys::{
        netns::{Netns, NetnsError},
        netstat::{NetstatError, TcpCounters},
        sock_diag::{SockDiag, SockDiagError},
    },
};

/// From the machine to itself a handshake takes microseconds, unless a queue is full.
const PATIENCE: Duration = Duration::from_millis(100);

/// The listeners of a service's serving instances, behind which somebody may sleep.
#[derive(Debug)]
pub(super) struct Sleepers {
    netns: Arc<Netns>,
    groups: Vec<Group>,
    probe: Probe,
    last: Arc<Mutex<Option<Occasion>>>,
}

#[derive(Debug)]
struct Group {
    address: Address,
    listeners: HashSet<SocketCookie>,
}

/// A group where somebody may sleep.
struct Asleep<'a> {
    group: &'a Group,
    /// Those of its listeners whose queue has not been seen empty.
    listeners: HashSet<SocketCookie>,
    /// The connections that waited at first and that nobody has accepted. Queues are taken from the
    /// front, so whoever is awake gets to them, whatever comes behind.
    connections: HashSet<SocketCookie>,
}

/// What waits at the service's ports.
#[derive(Debug, Default)]
struct Seen {
    /// Listeners with something in their queue.
    queued: HashSet<SocketCookie>,
    /// Connections that nobody has accepted, with the server's side.
    unaccepted: HashMap<SocketCookie, SocketAddr>,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Woken {
    /// How many connections were made, and closed at once.
    pub(super) connections: u64,
    /// Why somebody may sleep on.
    pub(super) trouble: Option<String>,
}

#[derive(Debug, Error)]
enum WakeError {
    #[error(transparent)]
    Netns(#[from] NetnsError),
    #[error(transparent)]
    Netstat(#[from] NetstatError),
    #[error(transparent)]
    SockDiag(#[from] SockDiagError),
    #[error("cannot connect to {address}")]
    Connect {
        address: Address,
        #[source]
        source: io::Error,
    },
    #[error("{0} wait to be accepted, and wake-up connections did not help")]
    Asleep(usize),
}

impl Sleepers {
    /// Those of a service as it is now.
    pub(super) fn of(managed: &Managed, probe: Probe) -> Self {
        let state = &managed.state;
        let serving: HashSet<_> = state.in_state(InstanceState::Serving).collect();
        let groups = state.groups.iter().map(|group| Group {
            address: group.address.clone(),
            listeners: group
                .slots
                .values()
                .filter(|it| serving.contains(&it.generation))
                .map(|it| it.cookie)
                .collect(),
        });
        Self {
            netns: Arc::clone(&managed.netns),
            groups: groups.collect(),
            probe,
            last: Arc::clone(&managed.woken),
        }
    }

    /// Wakes them, where the kernel has moved connections since the last time and wakes nobody itself,
    /// until nobody waits for them or enough has been tried.
    pub(super) fn wake(&self) -> Woken {
        match self.probe.waker() {
            Waker::Kernel => Woken::default(),
            Waker::Daemon => {
                let mut connections = 0;
                let woken = match self.netns.enter(|| self.wake_here(&mut connections)) {
                    Ok(woken) => woken,
                    Err(error) => Err(error.into()),
                };
                Woken {
                    connections,
                    trouble: woken.err().map(|it| chain(&it)),
                }
            }
        }
    }

    /// In the calling thread's network namespace.
    fn wake_here(&self, connections: &mut u64) -> Result<(), WakeError> {
        let listeners = self.groups.iter().flat_map(|it| &it.listeners);
        // Read before anything is looked at: what is moved from now on is for the next time.
        let occasion = Occasion {
            moved: TcpCounters::read()?.migrated.unwrap_or_default(),
            listeners: listeners.copied().collect(),
        };
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let called_for = occasion.calls_for_it(last.as_ref());
        *last = Some(occasion);
        drop(last);
        if !called_for {
            return Ok(());
        }
        let diag = SockDiag::open()?;
        let mut seen = self.look(&diag)?;
        let groups = self.groups.iter();
        let mut asleep: Vec<Asleep> = groups.map(|it| Asleep::as_far_as(it, &seen)).collect();
        asleep.retain_mut(|it| it.sleeps_on(&seen));
        // Who is awake and has much to do needs no connection more.
        if !asleep.is_empty() {
            thread::sleep(Waking::BEFORE);
            seen = self.look(&diag)?;
        }
        let mut waking = Waking::new();
        let mut result = Ok(());
        loop {
            asleep.retain_mut(|it| it.sleeps_on(&seen));
            if asleep.is_empty() {
                return result;
            }
            let Some(pause) = waking.round() else {
                let waiting = asleep.iter().map(|it| it.connections.len());
                return Err(WakeError::Asleep(waiting.sum()));
            };
            asleep.retain(|it| match it.group.wake(connections) {
                Ok(()) => true,
                // No reason to leave those at other addresses asleep.
                Err(error) => {
                    result = Err(error);
                    false
                }
            });
            thread::sleep(pause);
            seen = self.look(&diag)?;
        }
    }

    fn look(&self, diag: &SockDiag) -> Result<Seen, WakeError> {
        let ports = self.groups.iter().map(|it| it.address.socket.port());
        let ports: BTreeSet<u16> = ports.collect();
        let mut seen = Seen::default();
        for port in ports {
            let rows = diag.listeners(Some(port))?;
            let queued = rows.iter().filter(|it| it.accept_queue > 0);
            seen.queued.extend(queued.map(|it| it.cookie));
            seen.unaccepted.extend(diag.sessions(port)?.unaccepted);
        }
        Ok(seen)
    }
}

impl<'a> Asleep<'a> {
    fn as_far_as(group: &'a Group, seen: &Seen) -> Self {
        let unaccepted = seen.unaccepted.iter();
        let here = unaccepted.filter(|(_, local)| group.address.takes(**local));
        Self {
            group,
            listeners: group.listeners.clone(),
            connections: here.map(|(cookie, _)| *cookie).collect(),
        }
    }

    /// Whether somebody may still sleep. Neither tells alone: where much comes in, a queue may never be
    /// seen empty; and at the same address others may accept, or not.
    fn sleeps_on(&mut self, seen: &Seen) -> bool {
        self.listeners.retain(|it| seen.queued.contains(it));
        self.connections
            .retain(|it| seen.unaccepted.contains_key(it));
        !self.listeners.is_empty() && !self.connections.is_empty()
    }
}

impl Group {
    /// One round of connections.
    fn wake(&self, connections: &mut u64) -> Result<(), WakeError> {
        for _ in 0..Waking::connections(self.listeners.len()) {
            self.connect()?;
            *connections += 1;
        }
        Ok(())
    }

    /// Connects from a port of the kernel's choice, and closes at once.
    fn connect(&self) -> Result<(), WakeError> {
        let mut result = Ok(());
        for target in reached_at(&self.address) {
            result = self.connect_to(target);
            if result.is_ok() {
                break;
            }
        }
        result.map_err(|source| WakeError::Connect {
            address: self.address.clone(),
            source,
        })
    }

    fn connect_to(&self, target: SocketAddr) -> io::Result<()> {
        let socket = Socket::new(
            Domain::for_address(target),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        if let Some(device) = &self.address.device {
            socket.bind_device(Some(device.as_bytes()))?;
        }
        socket.connect_timeout(&target.into(), PATIENCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Listeners with something in their queue, and connections that nobody has accepted.
    fn seen(queued: &[u64], unaccepted: &[(u64, &str)]) -> Seen {
        let unaccepted = unaccepted.iter();
        Seen {
            queued: queued.iter().copied().map(SocketCookie).collect(),
            unaccepted: unaccepted
                .map(|(cookie, local)| (SocketCookie(*cookie), local.parse().expect("an address")))
                .collect(),
        }
    }

    fn group() -> Group {
        Group {
            address: "10.0.0.1:80".parse().expect("an address"),
            listeners: [1, 2].map(SocketCookie).into(),
        }
    }

    const HERE: &str = "10.0.0.1:80";

    #[test]
    fn who_gets_to_what_waited_at_first_is_awake_whatever_comes_behind() {
        let group = group();
        let mut asleep = Asleep::as_far_as(&group, &seen(&[1], &[(10, HERE), (11, HERE)]));
        assert!(asleep.sleeps_on(&seen(&[1], &[(10, HERE), (11, HERE), (12, HERE)])));
        assert!(asleep.sleeps_on(&seen(&[1], &[(11, HERE), (12, HERE)])));
        assert!(!asleep.sleeps_on(&seen(&[1], &[(12, HERE), (13, HERE)])));
    }

    #[test]
    fn an_empty_queue_is_proof_whoever_else_does_not_accept() {
        let group = group();
        let stuck = (10, HERE);
        let mut asleep = Asleep::as_far_as(&group, &seen(&[1, 2], &[stuck]));
        assert!(asleep.sleeps_on(&seen(&[2], &[stuck])));
        // The first has been seen empty, and the second is now.
        assert!(!asleep.sleeps_on(&seen(&[1, 7], &[stuck])));
    }

    #[test]
    fn what_waits_elsewhere_does_not_count() {
        let group = group();
        let elsewhere = seen(&[1], &[(10, "10.0.0.2:80"), (11, "10.0.0.1:81")]);
        assert!(!Asleep::as_far_as(&group, &elsewhere).sleeps_on(&elsewhere));
    }
}
