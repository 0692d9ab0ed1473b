//! A call that fails without having been made, as where the kernel has no more of what it takes.

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    sys::ptrace::{getregs, setregs},
    unistd::Pid,
};

/// Which calls do not get what they ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denial {
    /// The first one, among those that take something, counted from 0.
    pub call: usize,
    /// How many in a row.
    pub count: usize,
}

/// Keeps a thread that has entered a call from making it: the kernel knows no call of that number
/// (`syscall_trace_enter`,
/// <https://elixir.bootlin.com/linux/v6.18/source/arch/x86/entry/syscall_64.c>). False where the thread
/// has been killed meanwhile.
#[cfg(target_arch = "x86_64")]
pub(super) fn skip(thread: Pid) -> Result<bool> {
    let mut registers = match getregs(thread) {
        Ok(registers) => registers,
        Err(Errno::ESRCH) => return Ok(false),
        Err(error) => return Err(error).context("PTRACE_GETREGS"),
    };
    registers.orig_rax = u64::MAX;
    set(thread, registers)
}

/// Lets the call that a thread leaves have failed.
#[cfg(target_arch = "x86_64")]
pub(super) fn fail(thread: Pid, with: Errno) -> Result<()> {
    let mut registers = match getregs(thread) {
        Ok(registers) => registers,
        Err(Errno::ESRCH) => return Ok(()),
        Err(error) => return Err(error).context("PTRACE_GETREGS"),
    };
    registers.rax = i64::from(-(with as i32)).cast_unsigned();
    set(thread, registers)?;
    Ok(())
}

#[cfg(target_arch = "x86_64")]
fn set(thread: Pid, registers: libc::user_regs_struct) -> Result<bool> {
    match setregs(thread, registers) {
        Ok(()) => Ok(true),
        Err(Errno::ESRCH) => Ok(false),
        Err(error) => Err(error).context("PTRACE_SETREGS"),
    }
}
