//! How connections get into a state, when they are let go on, and what must come of it.

use std::time::Duration;

use reuseport_daemon::lab::load::Opening;
use reuseport_tests::cells::{Cell, Drain, State, Workers};

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

/// How a cell is played.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// What the link does at first.
    pub(crate) rule: Rule,
    /// Whether the old server stands at first.
    pub(crate) old_stands: bool,
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
            old_stands: false,
            gated: false,
            opening: Opening::Handshake,
            server_sysctls: &[],
            client_sysctls: &[],
            backlog: ROOMY,
            fast_open: None,
            defer_accept: None,
            releases: Vec::new(),
            drain_timeout: PATIENT,
        };
        let pass = Release::Rule(Rule::Pass);
        let small = match cell.workers {
            Workers::One => 4,
            // Two find room with each listener: sixteen in all.
            Workers::Eight => 1,
        };
        match cell.state {
            State::SynInFlight => Self {
                rule: Rule::HoldSyns,
                releases: vec![
                    (Moment::Asked, Release::Rule(Rule::HoldEverySecondSyn)),
                    (Moment::Switched, pass),
                ],
                ..plain
            },
            State::AckDelayed => Self {
                rule: Rule::HoldRest,
                releases: vec![(Moment::Draining, pass)],
                ..plain
            },
            State::AckDropped => Self {
                rule: Rule::DropRest,
                releases: vec![(Moment::Ended, pass)],
                drain_timeout: IMPATIENT,
                ..plain
            },
            State::SynAckTimer => Self {
                rule: Rule::DropRest,
                releases: vec![(Moment::Draining, Release::Rule(Rule::DropRestUntilSynAck))],
                ..plain
            },
            State::AcceptQueue => Self {
                old_stands: true,
                releases: vec![(old_goes_on(cell.drain), Release::OldServer)],
                ..plain
            },
            State::Accepted => Self {
                gated: true,
                releases: vec![(Moment::Ended, Release::Gate)],
                ..plain
            },
            State::SynCookie => Self {
                rule: Rule::HoldRest,
                server_sysctls: &[("net/ipv4/tcp_syncookies", "2")],
                releases: vec![(Moment::Switched, pass)],
                ..plain
            },
            State::FastOpen => Self {
                rule: Rule::HoldEverySecondRest,
                old_stands: true,
                opening: Opening::FastOpen,
                // For servers (2), from clients that have no cookie (0x200).
                server_sysctls: &[("net/ipv4/tcp_fastopen", "514")],
                // For clients (1), without a cookie (4).
                client_sysctls: &[("net/ipv4/tcp_fastopen", "5")],
                fast_open: Some(64),
                releases: vec![
                    (old_goes_on(cell.drain), Release::OldServer),
                    (Moment::Draining, pass),
                ],
                ..plain
            },
            State::DeferAccept => Self {
                gated: true,
                defer_accept: Some(60),
                releases: vec![(Moment::Draining, Release::Gate)],
                ..plain
            },
            // A SYN that is sent again comes to the new server, and may then be half-open when the
            // snapshot is taken, which cannot tell whose it is: it waits until that has been.
            State::AcceptQueueFull => Self {
                rule: Rule::HoldLaterSyns,
                old_stands: true,
                backlog: small,
                releases: vec![
                    (old_goes_on(cell.drain), Release::OldServer),
                    (Moment::Draining, pass),
                ],
                ..plain
            },
            State::SynQueueFull => Self {
                rule: Rule::HoldAllButFirstSyn,
                server_sysctls: &[
                    ("net/ipv4/tcp_syncookies", "0"),
                    ("net/ipv4/tcp_max_syn_backlog", "16"),
                ],
                backlog: small,
                releases: vec![(Moment::Draining, pass)],
                ..plain
            },
        }
    }
}

/// When an old server that stands goes on: where the drain needs it, or not before the end.
fn old_goes_on(drain: Drain) -> Moment {
    match drain {
        Drain::Owner => Moment::Draining,
    }
}

/// What must come of a cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Expected {
    /// Whether the migration ends in time.
    pub(crate) in_time: bool,
    /// How many handshakes it waits for, where that is certain.
    pub(crate) handshakes: Option<u64>,
    /// How many of the connections it leaves behind.
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
        let plain = Self {
            in_time: true,
            handshakes: Some(0),
            left_behind: 0,
            by: By::Old,
        };
        match cell.state {
            State::SynInFlight => Self {
                handshakes: None,
                by: By::NewLaterHalf,
                ..plain
            },
            State::AckDelayed | State::SynAckTimer | State::DeferAccept => Self {
                handshakes: Some(all),
                ..plain
            },
            State::AckDropped => Self {
                in_time: false,
                handshakes: Some(all),
                left_behind: all,
                ..plain
            },
            State::AcceptQueue | State::Accepted => plain,
            State::SynCookie => Self {
                by: By::New,
                ..plain
            },
            State::FastOpen => Self {
                handshakes: Some(all / 2),
                ..plain
            },
            State::AcceptQueueFull | State::SynQueueFull => Self {
                handshakes: None,
                by: By::AsCounted,
                ..plain
            },
        }
    }
}
