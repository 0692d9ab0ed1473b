//! Waking the acceptors of a service whose kernel does not: see [`crate::domain::Waking`].

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    io,
    net::SocketAddr,
    sync::Arc,
    thread,
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;
use tracing::{info, warn};

use super::{driver::Driver, managed::Managed, probe::Probe};
use crate::{
    chain::chain,
    domain::{Address, InstanceState, ServiceName, SocketCookie, Waker, Waking, reached_at},
    sys::{
        netns::{Netns, NetnsError},
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
}

#[derive(Debug)]
struct Group {
    address: Address,
    listeners: HashSet<SocketCookie>,
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
    SockDiag(#[from] SockDiagError),
    #[error("cannot connect to {address}")]
    Connect {
        address: Address,
        #[source]
        source: io::Error,
    },
    #[error("{0} wait to be accepted, and wake-up connections did not help")]
    Asleep(u64),
}

impl Driver {
    /// Wakes the acceptors of a service beside the driver, after the kernel may have moved connections
    /// to them that no migration accounts for.
    pub(super) fn wake(&self, name: &ServiceName) {
        let Some(managed) = self.services.get(name) else {
            return;
        };
        let sleepers = Sleepers::of(managed, self.probe.clone());
        let service = name.clone();
        self.beside.run(move || {
            let Woken {
                connections,
                trouble,
            } = sleepers.wake();
            if connections > 0 {
                info!(%service, connections, "woke acceptors that this kernel leaves asleep");
            }
            if let Some(trouble) = trouble {
                warn!(%service, %trouble, "acceptors may be asleep");
            }
        });
    }
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
        }
    }

    /// Wakes them, where the kernel does not, until nobody waits for them or enough has been tried.
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
        let diag = SockDiag::open()?;
        let mut waking = Waking::new();
        let mut asleep: HashSet<SocketCookie> = self.listeners().copied().collect();
        let mut result = Ok(());
        loop {
            let queues = self.queues(&diag)?;
            // Whose queue has been seen empty once is awake, however much comes later.
            asleep.retain(|it| queues.get(it).is_some_and(|queued| *queued > 0));
            if asleep.is_empty() {
                return result;
            }
            let Some(pause) = waking.round() else {
                let waiting = asleep.iter().filter_map(|it| queues.get(it));
                return Err(WakeError::Asleep(waiting.sum()));
            };
            for group in &self.groups {
                if !group.listeners.is_disjoint(&asleep)
                    && let Err(error) = group.wake(connections)
                {
                    // No reason to leave those at other addresses asleep.
                    asleep.retain(|it| !group.listeners.contains(it));
                    result = Err(error);
                }
            }
            thread::sleep(pause);
        }
    }

    fn listeners(&self) -> impl Iterator<Item = &SocketCookie> {
        self.groups.iter().flat_map(|it| &it.listeners)
    }

    /// How many connections wait for each listener at the service's ports.
    fn queues(&self, diag: &SockDiag) -> Result<HashMap<SocketCookie, u64>, WakeError> {
        let ports: BTreeSet<u16> = self
            .groups
            .iter()
            .map(|it| it.address.socket.port())
            .collect();
        let mut queues = HashMap::new();
        for port in ports {
            let rows = diag.listeners(Some(port))?;
            queues.extend(
                rows.iter()
                    .map(|it| (it.cookie, u64::from(it.accept_queue))),
            );
        }
        Ok(queues)
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
