//! Options of a listening TCP socket that neither socket2 nor rustix has.

#![expect(unsafe_code, reason = "calls that rustix and socket2 do not have")]

use std::{
    ffi::c_int,
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

/// Sets `TCP_FASTOPEN`: how many connections may wait that brought data in their SYN.
///
/// # Errors
///
/// What setsockopt(2) says, such as `EINVAL` for a socket that is past listening.
pub fn set_fast_open(socket: BorrowedFd<'_>, waiting: u16) -> io::Result<()> {
    set(socket, libc::TCP_FASTOPEN, c_int::from(waiting))
}

/// Sets `TCP_DEFER_ACCEPT`: how many seconds a connection may wait for its first data before it
/// reaches the accept queue.
///
/// # Errors
///
/// What setsockopt(2) says.
pub fn set_defer_accept(socket: BorrowedFd<'_>, seconds: u16) -> io::Result<()> {
    set(socket, libc::TCP_DEFER_ACCEPT, c_int::from(seconds))
}

/// Reads an option into `value`, and says how many bytes of it that took. It must be one that fills
/// no more than its length says, as all do but those that list keys.
pub(super) fn get(socket: BorrowedFd<'_>, option: c_int, value: &mut [u8]) -> io::Result<usize> {
    get_raw(socket, libc::IPPROTO_TCP, option, value)
}

/// The same, of any level.
pub(super) fn get_raw(
    socket: BorrowedFd<'_>,
    level: c_int,
    option: c_int,
    value: &mut [u8],
) -> io::Result<usize> {
    let mut length = libc::socklen_t::try_from(value.len()).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open, and the kernel writes at most `length` bytes to `value`. Both
    // places outlive the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            option,
            value.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result == 0 {
        Ok(usize::try_from(length).unwrap_or(usize::MAX))
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Sets any option to any bytes, for servers that are told on their command line what to set.
///
/// # Errors
///
/// What setsockopt(2) says.
pub fn set_raw(
    socket: BorrowedFd<'_>,
    level: c_int,
    option: c_int,
    value: &[u8],
) -> io::Result<()> {
    let length = libc::socklen_t::try_from(value.len()).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open, and the kernel reads `length` bytes of `value`, which outlives
    // the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            value.as_ptr().cast(),
            length,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn set(socket: BorrowedFd<'_>, option: c_int, value: c_int) -> io::Result<()> {
    set_raw(socket, libc::IPPROTO_TCP, option, &value.to_ne_bytes())
}
