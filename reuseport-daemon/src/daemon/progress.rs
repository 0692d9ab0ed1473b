//! What whoever asked for a migration is told while it lasts.

use std::time::Instant;

use crate::{
    api::{Replier, wire::Progress},
    sys::clock::millis,
};

/// Tells how far it has come.
pub(super) fn tell(replier: &Replier, progress: Progress) {
    replier.progress(progress.into());
}

/// Tells that a phase has begun that the domain does not wait in.
pub(super) fn tell_phase(replier: &Replier, phase: &str, started: Instant) {
    tell(replier, phase_since(phase, started));
}

/// Tells how many sessions the old instances have left.
pub(super) fn tell_sessions(replier: &Replier, sessions: Option<u64>, started: Instant) {
    let progress = Progress {
        sessions,
        ..phase_since("sessions", started)
    };
    tell(replier, progress);
}

/// A phase of a migration that began at `started`.
pub(super) fn phase_since(phase: &str, started: Instant) -> Progress {
    Progress {
        phase: phase.to_owned(),
        elapsed_ms: millis(started.elapsed()),
        handshakes: None,
        queued: None,
        sessions: None,
    }
}
