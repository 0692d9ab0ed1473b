//! What kind of packet asks for a listener.

use aya_ebpf::programs::SkReuseportContext;
use reuseport_common::Cause;

/// Where the flags stand in a TCP header (RFC 9293, section 3.1).
const FLAGS: usize = 13;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// A SYN begins a connection. Anything else that belongs to none is stray, and is steered all the
/// same: an ACK may bring a SYN cookie back, and its listener makes the connection.
#[inline(always)]
pub(crate) fn cause(ctx: &SkReuseportContext) -> Cause {
    // The data begins with the TCP header, which the kernel has in one piece by now.
    let flags = ctx.data() + FLAGS;
    if flags + 1 > ctx.data_end() {
        return Cause::Stray;
    }
    // SAFETY: the byte lies before the end of the packet's data, as was just checked, and as the
    // verifier checks again.
    let flags = unsafe { *(flags as *const u8) };
    if flags & (SYN | ACK) == SYN {
        Cause::New
    } else {
        Cause::Stray
    }
}
