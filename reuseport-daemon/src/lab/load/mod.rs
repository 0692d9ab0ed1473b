//! Load: clients that connect, ask, read to the end and close, over and over, and sessions that stay
//! open. Every request is in the ledger.

mod exchange;
mod gate;
mod http;
mod judgement;
mod lines;
mod protocol;
mod session;

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use thiserror::Error;

use self::{
    exchange::{Failure, exchange},
    session::Sessions,
};
pub use self::{gate::Gate, protocol::Protocol};
use super::{
    ledger::{Fate, Ledger, Mark},
    wire::{RequestId, Tag},
};
use crate::sys::netns::{Netns, NetnsError};

/// What a load is made of.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// What is spoken.
    pub protocol: Protocol,
    /// Where to connect; clients and sessions take turns in choosing one.
    pub targets: Vec<SocketAddr>,
    /// How many clients connect at a time.
    pub clients: u32,
    /// How each of them connects.
    pub opening: Opening,
    /// How many connections each of them makes; as many as it can until the load is stopped where
    /// this is left out.
    pub connections: Option<u32>,
    /// What they wait for before they ask, once they have connected. It is opened when the load is
    /// stopped.
    pub gate: Option<Arc<Gate>>,
    /// How long a client waits after each connection.
    pub pause: Duration,
    /// How many connections are held open.
    pub sessions: u32,
    /// How long all sessions wait after each has spoken once.
    pub session_pause: Duration,
    /// How long each step of a connection may take.
    pub step_timeout: Duration,
}

/// How a client connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// It connects, then asks.
    Handshake,
    /// It asks with its SYN (TCP Fast Open). The namespace must let it do so without a cookie.
    FastOpen,
}

impl LoadOptions {
    /// As many connections as it can make with that many clients, and no sessions. It speaks the
    /// lab's own protocol.
    #[must_use]
    pub fn churn(targets: Vec<SocketAddr>, clients: u32) -> Self {
        Self {
            protocol: Protocol::Lab,
            targets,
            clients,
            opening: Opening::Handshake,
            connections: None,
            gate: None,
            pause: Duration::ZERO,
            sessions: 0,
            session_pause: Duration::from_millis(10),
            step_timeout: Duration::from_secs(10),
        }
    }
}

/// A load that cannot run. It is never the server's fault: that would be a loss in the ledger.
#[derive(Debug, Error)]
pub enum LoadError {
    /// No target to connect to.
    #[error("there is no address to connect to")]
    NoTarget,
    /// The clients' namespace cannot be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// No thread for a client.
    #[error("start a client's thread")]
    Thread(#[source] io::Error),
    /// A client could not do its part: no port, no descriptor, no route.
    #[error("{step} to {target}")]
    Client {
        /// What it was about to do.
        step: &'static str,
        /// Where.
        target: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// A client's thread panicked.
    #[error("a client panicked")]
    Panicked,
}

/// How far a load has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Requests answered so far, those of sessions included.
    pub answered: u64,
    /// Requests lost so far.
    pub lost: u64,
}

/// What came of a load.
#[derive(Clone, Debug)]
pub struct Report {
    /// One request per connection: the ledger of the clients.
    pub connections: Ledger,
    /// Many requests per connection: the ledger of the sessions. An answer by another process than
    /// the one that answered first is [`LossKind::Wrong`](super::ledger::LossKind::Wrong).
    pub sessions: Ledger,
    /// How long it ran.
    pub elapsed: Duration,
}

impl Report {
    /// Connections that were answered, per second.
    #[must_use]
    pub fn rate(&self) -> u64 {
        let millis = self.elapsed.as_millis().max(1);
        let rate = u128::from(self.connections.answered()) * 1000 / millis;
        u64::try_from(rate).unwrap_or(u64::MAX)
    }
}

/// A load that runs until it is stopped or dropped.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    clients: Vec<Worker>,
    sessions: Vec<Worker>,
    started: Instant,
}

type Worker = thread::JoinHandle<Result<Ledger, LoadError>>;

/// The clients begin evenly over this time. All at once they would stay in step over a link, and every
/// moment at which a test looks would find them in the same part of their connections.
const START_SPREAD: Duration = Duration::from_millis(50);

/// A client's few frames fit many times over; hundreds of clients should not cost hundreds of stacks.
const STACK: usize = 128 * 1024;

impl Load {
    /// Starts a load in the clients' namespace.
    ///
    /// # Errors
    ///
    /// [`LoadError::NoTarget`], [`LoadError::Netns`] or [`LoadError::Thread`]; what had started by
    /// then has ended.
    pub fn start(netns: &Netns, options: LoadOptions) -> Result<Self, LoadError> {
        if options.targets.is_empty() {
            return Err(LoadError::NoTarget);
        }
        let mut load = Self {
            shared: Arc::new(Shared::new(options)),
            clients: Vec::new(),
            sessions: Vec::new(),
            started: Instant::now(),
        };
        let started = netns.enter(|| load.start_workers())?;
        started.map_err(LoadError::Thread)?;
        Ok(load)
    }

    /// Makes a mark: requests that begin from now on are told from those that began before.
    #[must_use = "the mark is what tells requests apart"]
    pub fn mark(&self) -> Mark {
        Mark(self.shared.mark.fetch_add(1, Ordering::SeqCst) + 1)
    }

    /// How far it has come.
    #[must_use]
    pub fn progress(&self) -> Progress {
        Progress {
            answered: self.shared.answered.load(Ordering::Relaxed),
            lost: self.shared.lost.load(Ordering::Relaxed),
        }
    }

    /// Waits until `more` further requests have come to an end, whichever; false where they have not
    /// by the deadline.
    #[must_use]
    pub fn advances_by(&self, more: u64, deadline: Duration) -> bool {
        const LOOK_EVERY: Duration = Duration::from_millis(1);
        let settled = || {
            let progress = self.progress();
            progress.answered + progress.lost
        };
        let target = settled() + more;
        let end = Instant::now() + deadline;
        while settled() < target {
            if Instant::now() >= end {
                return false;
            }
            thread::sleep(LOOK_EVERY);
        }
        true
    }

    /// Lets every client end what it has begun, and gives the ledgers.
    ///
    /// # Errors
    ///
    /// [`LoadError::Client`] where one could not go on, [`LoadError::Panicked`].
    pub fn stop(mut self) -> Result<Report, LoadError> {
        self.ask_to_stop();
        let elapsed = self.started.elapsed();
        let connections = join(self.clients.drain(..));
        let sessions = join(self.sessions.drain(..));
        Ok(Report {
            connections: connections?,
            sessions: sessions?,
            elapsed,
        })
    }

    fn start_workers(&mut self) -> io::Result<()> {
        for number in 0..self.shared.options.clients {
            let shared = Arc::clone(&self.shared);
            let worker = builder("client").spawn(move || shared.run_client(number))?;
            self.clients.push(worker);
        }
        if self.shared.options.sessions > 0 {
            let number = self.shared.options.clients;
            let shared = Arc::clone(&self.shared);
            let worker = builder("sessions").spawn(move || Sessions::run(&shared, number))?;
            self.sessions.push(worker);
        }
        Ok(())
    }

    fn ask_to_stop(&self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(gate) = &self.shared.options.gate {
            gate.open();
        }
        for worker in self.clients.iter().chain(&self.sessions) {
            worker.thread().unpark();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.ask_to_stop();
        for worker in self.clients.drain(..).chain(self.sessions.drain(..)) {
            // Whoever drops a load instead of stopping it does not want its ledgers.
            let _ = worker.join();
        }
    }
}

fn builder(name: &str) -> thread::Builder {
    thread::Builder::new()
        .name(name.to_owned())
        .stack_size(STACK)
}

/// Waits for all of them, whatever the first says.
fn join(workers: impl Iterator<Item = Worker>) -> Result<Ledger, LoadError> {
    let mut total = Ok(Ledger::default());
    for worker in workers {
        let ledger = worker.join().unwrap_or(Err(LoadError::Panicked));
        total = total.and_then(|mut total| {
            total.merge(ledger?);
            Ok(total)
        });
    }
    total
}

/// What all clients look at.
#[derive(Debug)]
struct Shared {
    options: LoadOptions,
    stop: AtomicBool,
    mark: AtomicU32,
    answered: AtomicU64,
    lost: AtomicU64,
}

impl Shared {
    fn new(options: LoadOptions) -> Self {
        Self {
            options,
            stop: AtomicBool::new(false),
            mark: AtomicU32::new(0),
            answered: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        }
    }

    fn run_client(&self, number: u32) -> Result<Ledger, LoadError> {
        let target = self.target(number);
        let mut ledger = Ledger::of_client(number);
        self.pause(START_SPREAD * number / self.options.clients);
        let limit = self.options.connections.map_or(u64::MAX, u64::from);
        while !self.stopped() && ledger.begun() < limit {
            let answer = self.account(&mut ledger, |id| exchange(&self.options, target, id));
            answer.map_err(|(step, source)| LoadError::Client {
                step,
                target,
                source,
            })?;
            self.pause(self.options.pause);
        }
        Ok(ledger)
    }

    /// Makes a request that the ledger knows of, or says why the client could not.
    fn account(
        &self,
        ledger: &mut Ledger,
        request: impl FnOnce(RequestId) -> Result<Tag, Failure>,
    ) -> Result<Fate, (&'static str, io::Error)> {
        let ticket = ledger.begin(self.current_mark(), Instant::now());
        let fate = match request(ticket.id()) {
            Ok(tag) => {
                self.answered.fetch_add(1, Ordering::Relaxed);
                Fate::Answered(tag)
            }
            Err(Failure::Lost(kind)) => {
                self.lost.fetch_add(1, Ordering::Relaxed);
                Fate::Lost(kind)
            }
            Err(Failure::Unable(step, source)) => return Err((step, source)),
        };
        ledger.settle(ticket, fate, self.current_mark(), Instant::now());
        Ok(fate)
    }

    fn target(&self, number: u32) -> SocketAddr {
        let targets = &self.options.targets;
        targets[number as usize % targets.len()]
    }

    fn current_mark(&self) -> Mark {
        Mark(self.mark.load(Ordering::SeqCst))
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Waits, unless the load is stopped meanwhile.
    fn pause(&self, pause: Duration) {
        if pause.is_zero() {
            return;
        }
        let end = Instant::now() + pause;
        while let Some(rest) = end.checked_duration_since(Instant::now()) {
            if rest.is_zero() || self.stopped() {
                return;
            }
            thread::park_timeout(rest);
        }
    }
}
