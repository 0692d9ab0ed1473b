//! Keeping packets from a listener that is about to be closed.
//!
//! The kernel resets a handshake that it completes on one CPU while another one closes the listener
//! (`inet_csk_reqsk_queue_add`,
//! <https://elixir.bootlin.com/linux/v6.18/source/net/ipv4/inet_connection_sock.c>). A listener that has
//! taken no packet for a grace period completes none. What was sent to it clients send again.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
};

use rustix::net::sockopt;
use socket2::SockRef;

use super::raw_program::{
    self, Instruction, Kind,
    opcode::{CALL, EXIT, JUMP_IF_NOT_EQUAL, LOAD_WIDE, MOVE},
};

/// The helper `get_socket_cookie`.
/// <https://elixir.bootlin.com/linux/v6.18/source/include/uapi/linux/bpf.h>
const SOCKET_COOKIE: i32 = 46;

/// How much of a packet a filter lets through.
const NOTHING: i32 = 0;
const EVERYTHING: i32 = -1;

/// Lets a listener take no packets any more: neither does a handshake begin with it, nor does one
/// end. What waits in it stays as it is.
///
/// # Errors
///
/// Where the kernel has no room for it, or the process may not load programs.
pub fn ignore(listener: BorrowedFd<'_>) -> io::Result<()> {
    let cookie = sockopt::socket_cookie(listener)?;
    let program = raw_program::load(Kind::SocketFilter, &all_but_those_of(cookie))?;
    raw_program::attach_filter(program.as_fd(), listener)
}

/// Takes [`ignore`] back. A listener that takes packets is fine.
///
/// # Errors
///
/// None that the kernel is known to give.
pub fn take(listener: BorrowedFd<'_>) -> io::Result<()> {
    match SockRef::from(&listener).detach_filter() {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        result => result,
    }
}

/// `return bpf_get_socket_cookie(skb) == cookie ? 0 : -1;`
///
/// It asks whose packet it is since a connection that is completed at this moment inherits the filter
/// (`sk_clone`, <https://elixir.bootlin.com/linux/v6.18/source/net/core/sock.c>), and would hear nothing
/// for as long as it lives.
fn all_but_those_of(cookie: u64) -> [Instruction; 8] {
    let half = |bits: u64| i32::from_ne_bytes(((bits & 0xffff_ffff) as u32).to_ne_bytes());
    let (low, high) = (half(cookie), half(cookie >> 32));
    [
        Instruction::new(CALL, 0, 0, 0, SOCKET_COOKIE),
        Instruction::new(LOAD_WIDE, 1, 0, 0, low),
        Instruction::new(0, 0, 0, 0, high),
        Instruction::new(JUMP_IF_NOT_EQUAL, 0, 1, 2, 0),
        Instruction::new(MOVE, 0, 0, 0, NOTHING),
        Instruction::new(EXIT, 0, 0, 0, 0),
        Instruction::new(MOVE, 0, 0, 0, EVERYTHING),
        Instruction::new(EXIT, 0, 0, 0, 0),
    ]
}
