//! The programs that choose the listener of every new connection in a reuseport group.
//!
//! ```text
//! ACTIVE -> STEERING[active].slots[bucket of the hash] -> SOCKETS[slot]     selected
//!                  | that slot is empty
//!                  v
//!           one of the next buckets -> SOCKETS[slot]                        probed
//!                  | all of them are
//!                  v
//!           SOCKETS[PARKING_SLOT]                                           parked
//!                  | empty as well
//!                  v
//!           no choice: the kernel hashes over the live listeners            kernel
//! ```

#![no_std]
#![no_main]

mod count;
mod maps;
mod packet;
mod steer;

use aya_ebpf::{macros::sk_reuseport, programs::SkReuseportContext};
use reuseport_common::Cause;

/// For kernels that cannot migrate (before Linux 5.14). They refuse a program that reads
/// `migrating_sk`, so this one must not.
#[sk_reuseport]
fn select(ctx: SkReuseportContext) -> u32 {
    let cause = packet::cause(&ctx);
    steer::steer(ctx, cause)
}

/// For kernels that ask where a closing listener's connections go (Linux 5.14+).
#[sk_reuseport(migrate)]
fn select_or_migrate(ctx: SkReuseportContext) -> u32 {
    // Two copies of the body, so that the usual one has nothing of the other.
    match ctx.migrating_sk() {
        None => {
            let cause = packet::cause(&ctx);
            steer::steer(ctx, cause)
        }
        Some(_) => steer::steer(ctx, Cause::Migrating),
    }
}

/// Nothing here panics; the compiler asks for it all the same, and the verifier would refuse the
/// loop.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// MIT in the kernel's vocabulary, which has no `MIT OR Apache-2.0`.
/// <https://elixir.bootlin.com/linux/v6.18/A/ident/license_is_gpl_compatible>
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
