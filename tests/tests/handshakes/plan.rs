//! How connections get into a state, when they are let go on, and what must come of it.

use std::time::Duration;

use reuseport_daemon::lab::load::Opening;
use reuseport_tests::cells::{Cell, Drain, Path, State, Workers};

use super::{CLIENTS, sieve::Rule};

/// A point in a migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// It is being asked for.
    Asked,
    /// The new table is active.
    Switched,
    /// There is a snapshot, and something in it to wait for.
    Draining,
    /// It has ended.
    Ended,
}

/// Something that holds connections back, and lets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Release {
    /// The link goes by another rule.
    Rule(Rule),
    /// The old server goes on.
    OldServer,
    /// The clients ask.
    Gate,
}

/// From when on the old server stands: it accepts nothing and reads nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stands {
    /// It goes on all the time.
    Never,
    /// From before the clients connect.
    AtFirst,
    /// From when they are all in their state.
    OnceReached,
}

/// How a cell is played.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// What the link does at first.
    pub(crate) rule: Rule,
    /// From when on the old server stands.
    pub(crate) old_stands: Stands,
    /// Whether the clients wait at first before they ask.
    pub(crate) gated: bool,
    /// How they connect.
    pub(crate) opening: Opening,
    /// Settings of the servers' network namespace.
    pub(crate) server_sysctls: &'static [(&'static str, &'static str)],
    /// Settings of the clients' network namespace.
    pub(crate) client_sysctls: &'static [(&'static str, &'static str)],
    /// How many connections may wait for a listener of the old server.
    pub(crate) backlog: u16,
    /// `TCP_FASTOPEN`
    pub(crate) fast_open: Option<u16>,
    /// `TCP_DEFER_ACCEPT`
    pub(crate) defer_accept: Option<u16>,
    /// What lets go when.
    pub(crate) releases: Vec<(Moment, Release)>,
    /// How long the migration may take.
    pub(crate) drain_timeout: Duration,
}

/// Room for all clients, many times over.
const ROOMY: u16 = 4096;

/// Longer than any cell takes.
const PATIENT: Duration = Duration::from_secs(120);

/// Time for a migration to see what there is, and for nothing to come of it.
const IMPATIENT: Duration = Duration::from_millis(300);

impl Plan {
    /// The plan of a cell.
    pub(crate) fn of(cell: Cell) -> Self {
        let plain = Self {
            rule: Rule::Pass,
            // It stands where the drain does not need it.
            old_stands: match cell.drain {
                Drain::Owner => Stands::Never,
                Drain::Kernel | Drain::Handoff => Stands::AtFirst,
            },
            gated: false,
            opening: Opening::Handshake,
            server_sysctls: &[],
            client_sysctls: &[],
            backlog: ROOMY,
            fast_open: None,
            defer_accept: None,
            releases: vec![(Moment::Ended, Release::OldServer)],
            drain_timeout: PATIENT,
        };
        let pass = Release::Rule(Rule::Pass);
        match cell.state {
            State::SynInFlight => Self {
                rule: Rule::HoldSyns,
                ..plain
                    .release(Moment::Asked, Release::Rule(Rule::HoldEverySecondSyn))
                    .release(Moment::Switched, pass)
            },
            State::AckDelayed => Self {
                rule: Rule::HoldRest,
                ..plain.release(Moment::Draining, pass)
            },
            State::AckDropped => Self {
                rule: Rule::DropRest,
                drain_timeout: IMPATIENT,
                ..plain.release(Moment::Ended, pass)
            },
            State::SynAckTimer => Self {
                rule: Rule::DropRest,
                ..plain.once_seen(cell.drain, Release::Rule(Rule::DropRestUntilSynAck))
            },
            State::AcceptQueue => plain.full_of_connections(cell.drain),
            // They have asked, and are not read.
            State::Accepted => Self {
                gated: true,
                old_stands: Stands::OnceReached,
                ..plain.release(Moment::Asked, Release::Gate)
            },
            State::SynCookie => Self {
                rule: Rule::HoldRest,
                server_sysctls: &[("net/ipv4/tcp_syncookies", "2")],
                ..plain.release(Moment::Switched, pass)
            },
            State::FastOpen => Self {
                rule: Rule::HoldEverySecondRest,
                opening: Opening::FastOpen,
                // For servers (2), from clients that have no cookie (0x200).
                server_sysctls: &[("net/ipv4/tcp_fastopen", "514")],
                // For clients (1), without a cookie (4).
                client_sysctls: &[("net/ipv4/tcp_fastopen", "5")],
                fast_open: Some(64),
                ..plain
                    .full_of_connections(cell.drain)
                    .once_seen(cell.drain, pass)
            },
            State::DeferAccept => Self {
                gated: true,
                defer_accept: Some(60),
                ..plain.once_seen(cell.drain, Release::Gate)
            },
            // A SYN that is sent again comes to the new server, and may then be half-open when the
            // snapshot is taken, which cannot tell whose it is: it waits until that has been.
            State::AcceptQueueFull => Self {
                rule: Rule::HoldLaterSyns,
                backlog: small(cell.workers),
                ..plain
                    .full_of_connections(cell.drain)
                    .once_seen(cell.drain, pass)
            },
            State::SynQueueFull => Self {
                rule: Rule::HoldAllButFirstSyn,
                server_sysctls: &[
                    ("net/ipv4/tcp_syncookies", "0"),
                    ("net/ipv4/tcp_max_syn_backlog", "16"),
                ],
                backlog: small(cell.workers),
                ..plain.release(Moment::Draining, pass)
            },
        }
    }

    fn release(mut self, when: Moment, what: Release) -> Self {
        self.releases.push((when, what));
        self
    }

    /// The old server has a queue that it does not empty. Where that is its part of the drain, it
    /// goes on as soon as the queue has been seen.
    fn full_of_connections(mut self, drain: Drain) -> Self {
        if drain == Drain::Owner {
            self.releases = vec![(Moment::Draining, Release::OldServer)];
        }
        self.old_stands = Stands::AtFirst;
        self
    }

    /// Lets go once the daemon has seen what it holds, or, where the kernel can move even that, once
    /// the old listeners are closed.
    fn once_seen(mut self, drain: Drain, what: Release) -> Self {
        match drain {
            Drain::Owner | Drain::Handoff => self.release(Moment::Draining, what),
            Drain::Kernel => {
                self.drain_timeout = IMPATIENT;
                self.release(Moment::Ended, what)
            }
        }
    }
}

/// A backlog with less room than there are clients.
fn small(workers: Workers) -> u16 {
    match workers {
        Workers::One => 4,
        // Two find room with each listener: sixteen in all.
        Workers::Eight => 1,
    }
}

/// What must come of a cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Expected {
    /// Whether the migration ends in time.
    pub(crate) in_time: bool,
    /// How many handshakes it waits for, where that is certain.
    pub(crate) handshakes: Option<u64>,
    /// How many connections the drain takes from the old queues by the migration's end, in its own
    /// way, where that is certain.
    pub(crate) drained: Option<u64>,
    /// How many connections it leaves behind.
    pub(crate) left_behind: u64,
    /// Who answers.
    pub(crate) by: By,
}

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// The old server, all of them.
    Old,
    /// The new server, all of them.
    New,
    /// The new server those that came after the switch, half of them; either those before.
    NewLaterHalf,
    /// The old server what it had at the switch, as the migration counts it; the new one the rest.
    AsCounted,
}

impl Expected {
    /// What must come of it.
    pub(crate) fn of(cell: Cell) -> Self {
        let all = u64::from(CLIENTS);
        // Whoever drains has those that the old server could have answered.
        let owner = cell.drain == Drain::Owner;
        let or_new = |by| if owner { by } else { By::New };
        // The kernel moves these one by one, as their timers fire and packets come: mostly later.
        let later = |count| (cell.drain != Drain::Kernel).then_some(count);
        let plain = Self {
            in_time: true,
            handshakes: Some(0),
            drained: Some(0),
            left_behind: 0,
            by: or_new(By::Old),
        };
        match cell.state {
            State::SynInFlight => Self {
                handshakes: None,
                drained: None,
                by: or_new(By::NewLaterHalf),
                ..plain
            },
            State::AckDelayed => Self {
                handshakes: Some(all),
                drained: Some(all),
                ..plain
            },
            State::SynAckTimer | State::DeferAccept => Self {
                handshakes: Some(all),
                drained: later(all),
                ..plain
            },
            State::AckDropped if cell.drain == Drain::Kernel => Self {
                handshakes: Some(all),
                drained: later(all),
                ..plain
            },
            // Nobody may close a listener that has handshakes left: they stay its owner's.
            State::AckDropped => Self {
                in_time: false,
                handshakes: Some(all),
                left_behind: all,
                by: By::Old,
                ..plain
            },
            State::Accepted => Self {
                by: By::Old,
                ..plain
            },
            State::SynCookie => Self {
                by: By::New,
                ..plain
            },
            // One whose SYN got lost is an ordinary handshake.
            State::FastOpen if cell.path == Path::Lossy => Self {
                handshakes: None,
                drained: None,
                ..plain
            },
            State::AcceptQueue | State::FastOpen => Self {
                drained: Some(all),
                ..plain
            },
            State::AcceptQueueFull | State::SynQueueFull => Self {
                handshakes: None,
                drained: None,
                by: or_new(By::AsCounted),
                ..plain
            },
        }
    }
}
