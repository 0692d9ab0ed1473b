//! The one body of both programs: from a connection's hash to a listener.

use aya_ebpf::{bindings::sk_action::SK_PASS, programs::SkReuseportContext};
use aya_log_ebpf::{debug, info, warn};
use reuseport_common::{BUCKETS, Cause, Outcome, PARKING_SLOT, PROBES, SteeringTable, bucket_of};

use crate::{
    count,
    maps::{ACTIVE, SOCKETS, STEERING},
};

/// Chooses the listener of a connection. The verdict is always `SK_PASS`: without a choice the
/// kernel hashes over the group's live listeners, which loses nothing, and `SK_DROP` would.
/// <https://elixir.bootlin.com/linux/v6.18/A/ident/bpf_run_sk_reuseport>
#[inline(always)]
pub(crate) fn steer(ctx: SkReuseportContext, cause: Cause) -> u32 {
    if let Some(table) = active_table() {
        let bucket = bucket_of(ctx.hash());
        let slot = slot_of(table, bucket);
        if slot != PARKING_SLOT && select(&ctx, slot) {
            count::chosen(Outcome::Selected, cause, slot);
            match cause {
                Cause::New | Cause::Stray => {}
                Cause::Migrating => {
                    debug!(
                        ctx,
                        "hash {:x}: its listener closed, slot {} takes it",
                        ctx.hash(),
                        slot
                    );
                }
            }
        } else {
            probe(ctx, cause, table, bucket);
        }
    } else {
        park(ctx, cause);
    }
    SK_PASS
}

/// Tries the buckets after `first`, whose slot turned out to be empty.
///
/// A bucket that names the parking slot is an empty bucket and costs no attempt: where the whole
/// table is empty the search is a few loads, and where it is not, a live neighbour is better than
/// the parking listener, which nobody accepts from. Nor is the slot that was just found empty
/// tried again, which is all that the neighbours name in a group of one listener.
///
/// Rare, so it is a function of its own, which keeps the registers and the code of the usual path
/// few. The context comes by value: a reference would make the usual path store it.
#[cold]
#[inline(never)]
fn probe(ctx: SkReuseportContext, cause: Cause, table: *const SteeringTable, first: usize) {
    let empty = slot_of(table, first);
    let mut tried = empty;
    for step in 1..=PROBES {
        let slot = slot_of(table, (first + step) % BUCKETS);
        if slot == PARKING_SLOT || slot == tried {
            continue;
        }
        if select(&ctx, slot) {
            count::chosen(Outcome::Probed, cause, slot);
            debug!(
                ctx,
                "hash {:x}: slot {} is empty, slot {} takes it",
                ctx.hash(),
                empty,
                slot
            );
            return;
        }
        tried = slot;
    }
    park(ctx, cause);
}

/// The last resort but one: the parking listener.
#[cold]
#[inline(never)]
#[expect(clippy::needless_pass_by_value, reason = "as in `probe`")]
fn park(ctx: SkReuseportContext, cause: Cause) {
    if select(&ctx, PARKING_SLOT) {
        count::chosen(Outcome::Parked, cause, PARKING_SLOT);
        info!(
            ctx,
            "hash {:x}: no live listener, the parking listener takes it",
            ctx.hash()
        );
    } else {
        count::unchosen(cause);
        warn!(
            ctx,
            "hash {:x}: no live listener in the table, the kernel chooses",
            ctx.hash()
        );
    }
}

/// The table that user space does not write to at the moment.
#[inline(always)]
fn active_table() -> Option<*const SteeringTable> {
    let active = ACTIVE.get_ptr(0)?;
    // SAFETY: the map's own entry, a u32 aligned to 8 bytes, which lives as long as the program.
    // Volatile, because user space writes it meanwhile and the two uses of it must agree.
    let active = unsafe { active.read_volatile() };
    STEERING.get_ptr(active)
}

/// The slot that `bucket` names.
#[inline(always)]
fn slot_of(table: *const SteeringTable, bucket: usize) -> u32 {
    let slot = table.cast::<u16>().wrapping_add(bucket);
    // SAFETY: within the table, since every caller's bucket is below BUCKETS, which the verifier
    // checks again. Volatile, because a run that takes longer than user space waits for may read a
    // copy that is being written.
    let slot = unsafe { slot.read_volatile() };
    u32::from(slot)
}

/// Whether the slot's listener takes the connection. It does not where the slot is empty, or where
/// its socket left the group a moment ago.
/// <https://elixir.bootlin.com/linux/v6.18/A/ident/sk_select_reuseport>
#[inline(always)]
fn select(ctx: &SkReuseportContext, slot: u32) -> bool {
    SOCKETS.select_reuseport(ctx, slot).is_ok()
}
