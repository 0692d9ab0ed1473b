//! Programs of a few instructions, loaded as they are.

#![expect(unsafe_code, reason = "aya loads programs from ELF objects alone")]

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use super::listen_options::set_raw;

/// `BPF_PROG_LOAD`.
/// <https://elixir.bootlin.com/linux/v6.18/source/include/uapi/linux/bpf.h>
const PROG_LOAD: libc::c_long = 5;

/// What a program is for, as the kernel numbers it (`enum bpf_prog_type`, in the same file).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// It says how much of each packet its socket gets.
    SocketFilter = 1,
    /// It chooses a socket of its group.
    Reuseport = 21,
}

/// Codes of instructions, as RFC 9669 has them.
#[expect(missing_docs, reason = "the names say what they do")]
pub mod opcode {
    pub const ADD: u8 = 0x07;
    pub const LOAD_WIDE: u8 = 0x18;
    pub const MULTIPLY: u8 = 0x27;
    pub const JUMP_IF_NOT_EQUAL: u8 = 0x5d;
    pub const LOAD_WORD: u8 = 0x61;
    pub const STORE_WORD: u8 = 0x62;
    pub const STORE_REGISTER: u8 = 0x63;
    pub const SHIFT_RIGHT: u8 = 0x77;
    pub const CALL: u8 = 0x85;
    pub const EXIT: u8 = 0x95;
    pub const MOVE: u8 = 0xb7;
    pub const MOVE_REGISTER: u8 = 0xbf;
}

/// One instruction of eBPF, or half of one of 16 bytes (RFC 9669, section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

impl Instruction {
    /// The fields of an instruction, by their names in the standard.
    #[must_use]
    pub const fn new(code: u8, dst: u8, src: u8, offset: i16, immediate: i32) -> Self {
        let registers = if cfg!(target_endian = "big") {
            dst << 4 | src
        } else {
            src << 4 | dst
        };
        Self {
            code,
            registers,
            offset,
            immediate,
        }
    }
}

/// The fields of `union bpf_attr` that a plain load has; the kernel takes those after them for zero.
#[repr(C)]
struct Load {
    program_type: u32,
    count: u32,
    instructions: u64,
    license: u64,
}

/// Loads a program.
///
/// # Errors
///
/// What bpf(2) says: EINVAL and EACCES where the verifier refuses it.
pub fn load(kind: Kind, instructions: &[Instruction]) -> io::Result<OwnedFd> {
    let attributes = Load {
        program_type: kind as u32,
        count: u32::try_from(instructions.len()).map_err(io::Error::other)?,
        instructions: instructions.as_ptr().expose_provenance() as u64,
        license: c"Dual MIT/GPL".as_ptr().expose_provenance() as u64,
    };
    // SAFETY: the kernel reads as many bytes as `attributes` has, the instructions that it counts, and
    // the licence to its NUL; all of them outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            PROG_LOAD,
            &raw const attributes,
            size_of::<Load>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = libc::c_int::try_from(result).map_err(io::Error::other)?;
    // SAFETY: the call has just made this descriptor, close-on-exec, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Lets the group of `socket` run a program, in place of the one that it has.
///
/// # Errors
///
/// What setsockopt(2) says: EINVAL where the socket is in no group.
pub fn attach(program: BorrowedFd<'_>, socket: BorrowedFd<'_>) -> io::Result<()> {
    let program = program.as_raw_fd().to_ne_bytes();
    set_raw(
        socket,
        libc::SOL_SOCKET,
        libc::SO_ATTACH_REUSEPORT_EBPF,
        &program,
    )
}

/// Filters what comes to `socket` with a program, in place of the filter that it has.
///
/// # Errors
///
/// What setsockopt(2) says: ENOMEM where the socket's options have no room for it.
pub fn attach_filter(program: BorrowedFd<'_>, socket: BorrowedFd<'_>) -> io::Result<()> {
    let program = program.as_raw_fd().to_ne_bytes();
    set_raw(socket, libc::SOL_SOCKET, libc::SO_ATTACH_BPF, &program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instruction_is_laid_out_as_the_kernel_reads_it() {
        // r1 = *(u32 *)(r10 - 4), in the bytes of a little-endian machine.
        let load = Instruction::new(0x61, 1, 10, -4, 0);
        if cfg!(target_endian = "little") {
            assert_eq!(load.registers, 0xa1);
        }
        assert_eq!(size_of_val(&load), 8);
        assert_eq!(size_of::<Load>(), 24);
    }

    #[test]
    fn what_the_verifier_would_refuse_is_an_error() {
        // It ends without a result, if the kernel lets us try at all.
        let exit = Instruction::new(0x95, 0, 0, 0, 0);
        assert!(load(Kind::Reuseport, &[exit]).is_err());
    }
}
