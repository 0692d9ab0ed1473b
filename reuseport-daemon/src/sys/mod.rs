//! What the kernel offers and no crate wraps safely: the only place with `unsafe`.

#![expect(
    unsafe_code,
    reason = "system calls that neither std nor rustix wraps safely end here, and nowhere else"
)]

pub mod interface;
pub mod listen_options;
pub mod netns;
pub mod tun;
