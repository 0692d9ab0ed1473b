//! A cell's world: a link, a daemon, an old and a new server, and clients that connect once each.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use reuseport_daemon::{
    lab::{
        fixture::Fixture,
        link::{Link, LinkOptions},
        load::{Gate, Load, LoadOptions},
        server::{self, Options},
        sysctl,
        world::World,
    },
    sys::{netstat::TcpCounters, sock_diag::SockDiag},
};
use reuseport_tests::{
    cells::{Acceptor, Cell, Drain, Family, Path, State},
    held::instance_status,
    stage::{PORT, SERVICE, Stage, any_v4, listening},
    wait::until,
};

use super::{CLIENTS, plan::Plan, sieve::Sieve};

/// How long a client waits for each step: longer than the kernel tries again in the worst case.
pub(crate) const STEP_TIMEOUT: Duration = Duration::from_secs(60);

/// How many workers the servers have, each with a listener.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Crew {
    pub(crate) old: u16,
    pub(crate) new: u16,
}

impl Crew {
    /// The crew of a cell of the table.
    pub(crate) fn of(cell: Cell) -> Self {
        let count = cell.workers.count();
        Self {
            old: count,
            new: count,
        }
    }
}

/// Everything in a cell.
pub(crate) struct Scene {
    pub(crate) crew: Crew,
    pub(crate) stage: Stage,
    pub(crate) old: Fixture,
    pub(crate) new: Fixture,
    pub(crate) gate: Arc<Gate>,
    pub(crate) sieve: Sieve,
    cell: Cell,
    diag: SockDiag,
}

impl Scene {
    /// Sets the scene: the old server serves, the new one stands by, nobody has connected.
    pub(crate) fn set(cell: Cell, crew: Crew, plan: &Plan) -> Result<Self> {
        let world = World::linked(link(cell.path))?;
        for (key, value) in plan.server_sysctls {
            sysctl::write(world.server(), key, value)?;
        }
        for (key, value) in plan.client_sysctls {
            sysctl::write(world.client(), key, value)?;
        }
        let diag = world.server().enter(SockDiag::open)??;
        let stage = Stage::set(world, &[address(cell.family)])?;
        let old = Options {
            workers: crew.old,
            backlog: plan.backlog,
            ..options(cell, plan, "v1")
        };
        let mut new = Options {
            workers: crew.new,
            ..options(cell, plan, "v2")
        };
        if cell.drain == Drain::Handoff {
            new.receive = Some(SERVICE.to_owned());
            new.control = Some(stage.home().socket());
        }
        let (old, new) = (stage.instance(&old)?, stage.instance(&new)?);
        if cell.drain == Drain::Handoff {
            until("the new server receives", || {
                let status = instance_status(&stage, SERVICE, "v2")?;
                Ok(status.is_some_and(|it| it.receivers > 0))
            })?;
        }
        Ok(Self {
            crew,
            old,
            new,
            gate: Arc::default(),
            sieve: Sieve::default(),
            stage,
            cell,
            diag,
        })
    }

    /// The link.
    pub(crate) fn link(&self) -> Result<&Link> {
        self.stage.world.link().context("a link")
    }

    /// Lets the clients begin, and waits until all are in the state.
    pub(crate) fn reach(&self, plan: &Plan) -> Result<Load> {
        self.sieve.set(self.link()?, plan.rule);
        let world = &self.stage.world;
        let targets = match self.cell.family {
            Family::V4 => vec![world.v4(PORT)],
            Family::V6 => vec![world.v6(PORT)],
            Family::Dual => vec![world.v4(PORT), world.v6(PORT)],
        };
        let options = LoadOptions {
            opening: plan.opening,
            connections: Some(1),
            gate: plan.gated.then(|| Arc::clone(&self.gate)),
            step_timeout: STEP_TIMEOUT,
            ..LoadOptions::churn(targets, CLIENTS)
        };
        let load = Load::start(world.client(), options)?;
        let mut seen = Seen::default();
        let reached = until("all are in the state", || {
            seen = self.look()?;
            Ok(seen.all_in(self.cell.state))
        });
        let counts = self.link()?.counts();
        reached.with_context(|| format!("{seen:?}, {counts:?}"))?;
        ensure!(load.progress().answered == 0, "answered already");
        Ok(load)
    }

    /// Whether this kernel can drain as the cell wants it: to move connections between listeners
    /// takes a program that is asked where to (Linux 5.14).
    pub(crate) fn can_drain(&self) -> Result<bool> {
        let groups = self.stage.status()?.groups;
        let asked = groups.iter().all(|it| it.program == "select_or_migrate");
        Ok(self.cell.drain != Drain::Kernel || asked)
    }

    /// How many listeners there are.
    pub(crate) fn listeners(&self) -> Result<usize> {
        Ok(self.diag.listeners(Some(PORT))?.len())
    }

    /// Counters of the servers' network namespace.
    pub(crate) fn counters(&self) -> Result<TcpCounters> {
        Ok(self.stage.world.server().enter(TcpCounters::read)??)
    }

    fn look(&self) -> Result<Seen> {
        if self.sieve.clients() < CLIENTS as usize {
            return Ok(Seen::default());
        }
        let listeners = self.diag.listeners(Some(PORT))?;
        // To read the counters takes a thread, and only these two need them.
        let counts = matches!(
            self.cell.state,
            State::AcceptQueueFull | State::SynQueueFull
        );
        let counters = counts.then(|| self.counters()).transpose()?;
        Ok(Seen {
            syns: self.sieve.clients(),
            syn_acks: self.sieve.answered(),
            connected: self.gate.waiting(),
            half_open: self.diag.handshakes(PORT)?.len(),
            queued: listeners.iter().map(|it| it.accept_queue as usize).sum(),
            full: listeners.iter().any(|it| it.accept_queue > it.backlog),
            accepted: self.diag.sessions(PORT)?.inodes.len(),
            overflows: counters.map_or(0, |it| it.listen_overflows),
            drops: counters.map_or(0, |it| it.listen_drops),
        })
    }
}

/// Where the connections are.
#[derive(Debug, Default)]
struct Seen {
    /// Clients that have sent a SYN.
    syns: usize,
    /// Clients that have been sent a SYN-ACK.
    syn_acks: usize,
    /// Clients that have connected, and wait to ask.
    connected: usize,
    half_open: usize,
    queued: usize,
    /// Whether an accept queue is full.
    full: bool,
    accepted: usize,
    overflows: u64,
    drops: u64,
}

impl Seen {
    /// Whether all clients are in that state, and none in another.
    fn all_in(&self, state: State) -> bool {
        let all = CLIENTS as usize;
        if self.syns != all {
            return false;
        }
        match state {
            State::SynInFlight => self.syn_acks == 0,
            State::AckDelayed | State::AckDropped | State::SynAckTimer => self.half_open == all,
            State::AcceptQueue => self.queued == all,
            State::Accepted => self.accepted == all && self.connected == all,
            State::SynCookie => self.syn_acks == all && self.half_open == 0,
            // A SYN that got lost is sent again without its data, and is then half-open without
            // being in the queue.
            State::FastOpen => self.half_open + self.queued == all && self.queued > all / 2,
            State::DeferAccept => self.half_open == all && self.connected == all,
            State::AcceptQueueFull => self.full && self.overflows > 0,
            State::SynQueueFull => self.half_open > 0 && self.drops > 0,
        }
    }
}

fn link(path: Path) -> LinkOptions {
    /// Of a round trip of 20 ms.
    const HALF: Duration = Duration::from_millis(10);
    match path {
        Path::Near => LinkOptions::with_delay(Duration::ZERO),
        Path::Far => LinkOptions::with_delay(HALF),
        Path::Lossy => LinkOptions {
            loss: 30_000,
            ..LinkOptions::with_delay(HALF)
        },
    }
}

fn address(family: Family) -> String {
    match family {
        Family::V4 => any_v4(),
        Family::V6 => format!("[::]:{PORT},v6only"),
        Family::Dual => format!("[::]:{PORT}"),
    }
}

fn options(cell: Cell, plan: &Plan, label: &str) -> Options {
    Options {
        acceptor: match cell.acceptor {
            Acceptor::Level => server::Acceptor::Level,
            Acceptor::Edge => server::Acceptor::Edge,
            Acceptor::Blocking => server::Acceptor::Blocking,
        },
        fast_open: plan.fast_open,
        defer_accept: plan.defer_accept,
        ..listening(label, &[&address(cell.family)])
    }
}
