//! What may be lost with the end of a server.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use reuseport_daemon::lab::ledger::{Ledger, LossKind};

/// When a server ended.
pub(super) struct End {
    begun: Instant,
    /// When it accepted nothing any more.
    over: Instant,
}

impl End {
    /// It is over by now.
    pub(super) fn since(begun: Instant) -> Self {
        let over = Instant::now();
        Self { begun, over }
    }
}

/// No more was lost than servers that were killed had accepted.
pub(super) fn check_accepted(ledger: &Ledger, accepted: u64) -> Result<()> {
    let lost = ledger.lost();
    ensure!(
        lost <= accepted,
        "{lost} lost of {accepted} that had been accepted"
    );
    Ok(())
}

/// Whatever was lost was under way when a server ended.
pub(super) fn check_losses(ledger: &Ledger, ends: &[End]) -> Result<()> {
    for kind in [LossKind::Refused, LossKind::TimedOut, LossKind::Wrong] {
        ensure!(ledger.lost_by(kind) == 0, "{} {kind}", ledger.lost_by(kind));
    }
    for loss in ledger.losses() {
        let end = ends.iter().rfind(|it| it.begun <= loss.when);
        let end = end.with_context(|| format!("{loss:?} before any end"))?;
        ensure!(loss.started <= end.over, "{loss:?} began after the end");
    }
    Ok(())
}

/// The same, of servers that closed their listeners and answered what they had accepted: all that
/// can be lost is what the kernel resets while it closes a listener, whoever else listens. That is
/// the acknowledgement that another CPU works on at that moment, and so hardly ever one
/// (`inet_csk_reqsk_queue_add`,
/// <https://elixir.bootlin.com/linux/v6.18/source/net/ipv4/inet_connection_sock.c>).
pub(super) fn check_closed(ledger: &Ledger, ends: &[End]) -> Result<()> {
    let (lost, reset) = (ledger.lost(), ledger.lost_by(LossKind::Reset));
    ensure!(lost == reset, "{lost} lost, and {reset} of them reset");
    ensure!(lost <= ends.len() as u64, "{lost} lost");
    for loss in ledger.losses() {
        let at = ends
            .iter()
            .any(|it| it.begun <= loss.when && loss.started <= it.over);
        ensure!(at, "{loss:?} while no listener was closed");
    }
    check_losses(ledger, ends)
}
