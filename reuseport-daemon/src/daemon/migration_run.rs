//! A migration as the one who asked for it sees it: progress, timings, counters, and the result.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use tracing::warn;

use super::{
    counters::{Counters, net_counters, outcomes},
    failure,
    managed::{Managed, Performed},
    observe::Seen,
    progress::{phase_since, tell},
    session_wait::SessionWait,
};
use crate::{
    api::{
        Replier,
        wire::{Failure, MigrationResult, Progress},
    },
    domain::{Drain, End, Migration, Observation, Wait},
    steering::Runs,
    sys::{clock::millis, netstat::TcpCounters, sock_diag::Handshake},
};

/// What the caller is told of a target that has closed its listeners.
const DEAF: &str = "the new instance has closed its listeners meanwhile";

/// A migration under way.
#[derive(Debug)]
pub(super) struct Run {
    /// Tells its events from those of an earlier one.
    pub id: u64,
    started: Instant,
    /// Handshakes of the snapshot that were still half-open at the last reading.
    pub open: Arc<HashSet<Handshake>>,
    /// When the old listeners were found empty.
    drained: Option<Instant>,
    switch: Option<(Instant, Duration)>,
    before: Option<Counters>,
    trouble: Option<String>,
    /// How many connections it took to wake the new instance.
    woken: u64,
    /// Labels of the instances that it comes from, which may end before it does.
    from: Vec<String>,
    /// What differs between old and new listeners.
    warnings: Vec<String>,
    replier: Option<Replier>,
    /// What the caller wants to wait for afterwards.
    session_wait: Option<SessionWait>,
}

impl Run {
    /// A migration that somebody asked for.
    pub(super) fn begun(
        id: u64,
        started: Instant,
        before: Option<Counters>,
        from: Vec<String>,
        warnings: Vec<String>,
        replier: Replier,
        session_wait: Option<SessionWait>,
    ) -> Self {
        Self {
            started,
            before,
            warnings,
            replier: Some(replier),
            session_wait,
            ..Self::resumed(id, from)
        }
    }

    /// A migration that an earlier daemon began: nobody waits for its result so far.
    pub(super) fn resumed(id: u64, from: Vec<String>) -> Self {
        Self {
            id,
            started: Instant::now(),
            open: Arc::default(),
            drained: None,
            switch: None,
            before: None,
            trouble: None,
            from,
            woken: 0,
            warnings: Vec::new(),
            replier: None,
            session_wait: None,
        }
    }

    /// Takes note of what was seen, for the domain to judge.
    pub(super) fn note(&mut self, seen: Seen) -> Observation {
        match seen {
            Seen::GraceOver => Observation::GraceOver,
            Seen::Reading { open, queued } => {
                self.open = Arc::new(open);
                Observation::Reading {
                    handshakes: self.open_handshakes(),
                    queued,
                }
            }
            Seen::Deaf => {
                // It is seen again and again where there is no going back.
                if !self.warnings.iter().any(|it| it == DEAF) {
                    self.warnings.push(DEAF.to_owned());
                }
                Observation::Deaf
            }
            Seen::Retired { trouble, woken } => {
                self.trouble = trouble;
                self.woken += woken.connections;
                self.warnings.extend(woken.trouble.map(|it| {
                    format!("this kernel leaves acceptors asleep (CVE-2026-46015): {it}")
                }));
                match self.trouble {
                    None => Observation::Retired,
                    Some(_) => Observation::NotRetired,
                }
            }
            Seen::Missed => Observation::Missed,
        }
    }

    /// Takes note of the switch, when it has happened.
    pub(super) fn note_switch(&mut self, performed: &Performed) {
        if self.switch.is_none() {
            self.switch = performed.switch;
        }
    }

    /// How many handshakes are still waited for.
    fn open_handshakes(&self) -> u64 {
        self.open.len() as u64
    }

    /// Takes note of what is waited for.
    pub(super) fn note_wait(&mut self, wait: Wait) {
        if matches!(wait, Wait::Retirement(_)) {
            self.drained = Some(Instant::now());
        }
    }

    /// Tells how far it has come.
    pub(super) fn tell(&self, migration: &Migration) {
        let Some(replier) = &self.replier else {
            return;
        };
        let tally = migration.tally;
        let progress = Progress {
            handshakes: tally.map(|_| self.open_handshakes()),
            queued: tally.map(|tally| tally.left.saturating_sub(self.open_handshakes())),
            ..phase_since(migration.phase.as_str(), self.started)
        };
        tell(replier, progress);
    }

    /// Answers that it could not begin.
    pub(super) fn fail(self, failure: Failure) {
        if let Some(replier) = self.replier {
            replier.finish(Err(failure));
        }
    }

    /// Whether nobody waits for its result.
    pub(super) fn is_unattended(&self) -> bool {
        self.replier.as_ref().is_none_or(Replier::is_abandoned)
    }

    /// Somebody waits for its result from now on.
    pub(super) fn attend(&mut self, replier: Replier, session_wait: Option<SessionWait>) {
        self.replier = Some(replier);
        self.session_wait = session_wait;
    }

    /// Tells whoever waits that the daemon stops, which must not wait for an old server.
    pub(super) fn dismiss(&mut self) {
        if let Some(replier) = self.replier.take() {
            replier.finish(Err(failure::interrupted()));
        }
    }

    /// Answers with the result.
    pub(super) fn finish(self, managed: &Managed, migration: &Migration, end: End) {
        let result = self.result(managed, migration, end);
        if let Some(trouble) = &self.trouble {
            warn!(service = %managed.name(), %trouble, "old listeners not retired");
        }
        let Some(replier) = self.replier else {
            return;
        };
        if let (End::Done, None, Some(wait)) = (end, &self.trouble, self.session_wait) {
            return wait.start(managed, result, replier);
        }
        replier.finish(match (end, self.trouble) {
            (End::Failed, _) => Err(failure::target_ended(&result.to)),
            (_, Some(trouble)) => Err(failure::not_retired(&result.to, &trouble)),
            (End::Done | End::RolledBack | End::TimedOut | End::NotRetired, None) => {
                Ok(result.into())
            }
        });
    }

    fn result(&self, managed: &Managed, migration: &Migration, end: End) -> MigrationResult {
        let tally = migration.tally.unwrap_or_default();
        let after = self.before.as_ref().and_then(|_| Counters::read(managed));
        let (net, runs, handed_off) = match (&self.before, after) {
            (Some(before), Some(after)) => (
                after.net.since(&before.net),
                after.runs.since(&before.runs),
                after.handed_off.saturating_sub(before.handed_off),
            ),
            (Some(_) | None, _) => (NO_COUNTERS, Runs::default(), 0),
        };
        let drain = match (self.switch, self.drained) {
            (Some((switched, _)), Some(drained)) => drained.saturating_duration_since(switched),
            (Some((switched, _)), None) => switched.elapsed(),
            (None, _) => self.started.elapsed(),
        };
        MigrationResult {
            service: managed.name().to_string(),
            from: self.from.clone(),
            to: managed.state.label(migration.to).to_string(),
            outcome: match end {
                End::Done => "done",
                End::RolledBack => "rolled_back",
                End::TimedOut => "timed_out",
                End::NotRetired => "not_retired",
                End::Failed => "failed",
            }
            .to_owned(),
            switch_us: self.switch.map_or(0, |(_, took)| micros(took)),
            drain_ms: millis(drain),
            handshakes_waited: tally.handshakes,
            accepted_while_draining: tally.taken().saturating_sub(handed_off),
            moved_by_kernel: net.migrated.unwrap_or(0),
            handed_off,
            woken: self.woken,
            // What the last reading found has been moved since, where the kernel drained.
            left_behind: match (end, migration.options.drain) {
                (End::Done, Drain::Kernel) => 0,
                (
                    End::Done | End::RolledBack | End::TimedOut | End::NotRetired | End::Failed,
                    _,
                ) => tally.left,
            },
            sessions_left: None,
            counters: net_counters(&net),
            outcomes: outcomes(&runs),
            warnings: self.warnings.clone(),
        }
    }
}

/// What is reported where the counters could not be read.
const NO_COUNTERS: TcpCounters = TcpCounters {
    migrated: None,
    not_migrated: None,
    listen_overflows: 0,
    listen_drops: 0,
};

/// Whole microseconds.
fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
