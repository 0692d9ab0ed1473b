//! What may be lost when a server is killed.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use reuseport_daemon::lab::ledger::{Ledger, LossKind};

use super::GAP;

/// When a server was killed.
pub(super) struct Kill {
    begun: Instant,
    /// When it accepted nothing any more.
    dead: Instant,
}

impl Kill {
    /// It is dead by now.
    pub(super) fn since(begun: Instant) -> Self {
        let dead = Instant::now();
        Self { begun, dead }
    }
}

/// Whatever was lost was under way when a process was killed, and was lost there and then.
pub(super) fn check_losses(ledger: &Ledger, kills: &[Kill]) -> Result<()> {
    for kind in [LossKind::Refused, LossKind::TimedOut, LossKind::Wrong] {
        ensure!(ledger.lost_by(kind) == 0, "{} {kind}", ledger.lost_by(kind));
    }
    for loss in ledger.losses() {
        let kill = kills.iter().rfind(|it| it.begun <= loss.when);
        let kill = kill.with_context(|| format!("{loss:?} before any kill"))?;
        ensure!(loss.started <= kill.dead, "{loss:?} began after the kill");
        let later = loss.when.saturating_duration_since(kill.dead);
        ensure!(later < GAP, "{loss:?} came {later:?} after the kill");
    }
    Ok(())
}
