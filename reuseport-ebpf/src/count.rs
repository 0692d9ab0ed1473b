//! Counting: every run in exactly one outcome, and every new connection under its slot.

use reuseport_common::{Cause, Outcome, outcome_index};

use crate::maps::{OUTCOMES, SELECTED};

/// Counts a run that chose `slot`.
#[inline(always)]
pub(crate) fn chosen(outcome: Outcome, cause: Cause, slot: u32) {
    run(outcome, cause);
    match cause {
        Cause::New => increment(SELECTED.get_ptr_mut(slot)),
        Cause::Migrating | Cause::Stray => {}
    }
}

/// Counts a run that chose nothing.
#[inline(always)]
pub(crate) fn unchosen(cause: Cause) {
    run(Outcome::Kernel, cause);
}

#[inline(always)]
fn run(outcome: Outcome, cause: Cause) {
    increment(OUTCOMES.get_ptr_mut(outcome_index(outcome, cause)));
}

/// Plain arithmetic loses nothing: the kernel runs these programs with bottom halves off, both for
/// a packet and for a closing listener, so that no other run comes between on this CPU.
/// <https://elixir.bootlin.com/linux/v6.18/A/ident/inet_csk_listen_stop>
#[inline(always)]
fn increment(counter: Option<*mut u64>) {
    if let Some(counter) = counter {
        // SAFETY: the map's own entry for this CPU, aligned to 8 bytes, which lives as long as the
        // program, and only user space reads it meanwhile.
        unsafe { *counter += 1 };
    }
}
