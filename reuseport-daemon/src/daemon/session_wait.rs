//! Waiting, after a migration, for the old instances' sessions to end. It is done for one caller and
//! beside the driver: for the service the migration is over.

use std::time::{Duration, Instant};

use tokio::{
    sync::watch,
    task::{self, JoinSet},
};
use tracing::warn;

use super::{
    failure,
    managed::Managed,
    progress::tell_sessions,
    sessions::{CountError, Old},
};
use crate::{
    api::{Replier, wire::MigrationResult},
    chain::chain,
    domain::Patience,
    sys::{process::Process, readiness},
};

/// A wait that a caller has asked for.
#[derive(Clone, Debug)]
pub(super) struct SessionWait {
    /// How long it may take.
    pub limit: Duration,
    /// When the call began.
    pub started: Instant,
    /// True when the daemon is about to stop.
    pub stopped: watch::Receiver<bool>,
}

impl SessionWait {
    /// Answers with `result` once no instance that the service has moved away from has a session
    /// left, or the time is up, or the daemon stops. Ends at once where the caller goes away.
    pub(super) fn start(self, managed: &Managed, result: MigrationResult, replier: Replier) {
        let old = Old::of(managed);
        tokio::spawn(async move {
            let left = tokio::select! {
                () = replier.abandoned() => return,
                left = self.wait(&old, &replier) => left,
            };
            replier.finish(match left {
                Ok(left) => Ok(with_left(result, left).into()),
                Err(error) => Err(failure::not_counted(&result.to, &chain(&error))),
            });
        });
    }

    /// How many sessions are left at the end of the wait.
    async fn wait(&self, old: &Old, replier: &Replier) -> Result<u64, CountError> {
        let begun = Instant::now();
        let mut patience = Patience::new(self.limit);
        let mut stopped = self.stopped.clone();
        let mut exits = exits(old);
        let mut told = None;
        loop {
            let count = count(old).await;
            let left = count.as_ref().ok().copied();
            if left.is_some() && left != told {
                tell_sessions(replier, left, self.started);
                told = left;
            }
            let Some(pause) = patience.pause(left, begun.elapsed()) else {
                return count;
            };
            if let Err(error) = &count {
                let error = chain(error);
                warn!(%error, "cannot count sessions; trying again");
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                // Its sessions have ended with it: what is left is worth telling now.
                Some(_) = exits.join_next() => {}
                _ = stopped.wait_for(|it| *it) => return count,
            }
        }
    }
}

/// One task for each process, which ends when the process does, or with the set. One that cannot be
/// watched is still noticed at the next count.
fn exits(old: &Old) -> JoinSet<()> {
    let mut exits = JoinSet::new();
    for process in old.processes() {
        let process = Process::reopen(*process).ok();
        if let Some(pidfd) = process.and_then(|it| readiness::readable(it.into()).ok()) {
            exits.spawn(async move {
                let _ = pidfd.readable().await;
            });
        }
    }
    exits
}

/// Counts on a thread of its own: a process may have a hundred thousand descriptors.
async fn count(old: &Old) -> Result<u64, CountError> {
    let old = old.clone();
    task::spawn_blocking(move || old.count())
        .await
        .unwrap_or_else(|error| Err(CountError::Broken(error)))
}

fn with_left(result: MigrationResult, left: u64) -> MigrationResult {
    let outcome = if left == 0 {
        result.outcome
    } else {
        "sessions_left".to_owned()
    };
    MigrationResult {
        outcome,
        sessions_left: Some(left),
        ..result
    }
}
