//! The only place of the daemon with `unsafe`: what the kernel offers and no safe wrapper covers.

pub mod unix_socket;
