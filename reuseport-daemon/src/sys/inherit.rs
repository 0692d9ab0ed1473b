//! Descriptors that a child gets by their number.

#![expect(unsafe_code, reason = "descriptors by their number, in the child")]

use std::{
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::Command,
};

/// The number of the first one, after the standard three.
const FIRST: i32 = 3;

/// Lets the child of a command have these, numbered from 3 on. This process keeps them close-on-exec,
/// as long as the command lives.
pub fn pass(command: &mut Command, fds: Vec<OwnedFd>) {
    let end = FIRST.saturating_add(i32::try_from(fds.len()).unwrap_or(i32::MAX));
    let mut aside = vec![0; fds.len()];
    let place = move || {
        // First out of each other's way: what one is to be called, another one may be called now.
        for (fd, aside) in fds.iter().zip(&mut aside) {
            // SAFETY: the descriptor is open, and the number that it gets is a free one.
            *aside = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, end) };
            if *aside < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        for (number, aside) in (FIRST..end).zip(&aside) {
            // SAFETY: the child is about to be another program, which finds there what it has been told
            // of. If it cannot be that, what it would report that on may be gone, and it aborts.
            if unsafe { libc::dup2(*aside, number) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: between fork and exec it makes system calls and nothing else: it allocates nothing, and
    // takes no lock.
    unsafe { command.pre_exec(place) };
}
