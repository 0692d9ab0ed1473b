//! The programs that ours is held against, and how often the kernel has run any of them.

use std::{
    fs,
    os::fd::{AsRawFd, BorrowedFd},
};

use anyhow::{Context, Result};
use reuseport_daemon::{
    domain::Slot,
    sys::raw_program::{
        Instruction,
        opcode::{
            ADD, CALL, EXIT, LOAD_WIDE, LOAD_WORD, MOVE, MOVE_REGISTER, MULTIPLY, SHIFT_RIGHT,
            STORE_REGISTER, STORE_WORD,
        },
    },
};

use crate::bench::summary::float;

/// `SK_PASS`, and the helper `sk_select_reuseport`.
/// <https://elixir.bootlin.com/linux/v6.18/source/include/uapi/linux/bpf.h>
const SK_PASS: i32 = 1;
const SELECT: i32 = 82;

/// Says of an immediate number that it is a map's descriptor.
const MAP: u8 = 1;
/// What a program is called with, and where its hash is in `struct sk_reuseport_md`.
const CONTEXT: u8 = 1;
const HASH: i16 = 32;
/// The frame pointer.
const FRAME: u8 = 10;

/// `return SK_PASS;`
pub(super) fn pass() -> [Instruction; 2] {
    [
        Instruction::new(MOVE, 0, 0, 0, SK_PASS),
        Instruction::new(EXIT, 0, 0, 0, 0),
    ]
}

/// `u32 key = slot; bpf_sk_select_reuseport(ctx, sockets, &key, 0); return SK_PASS;`
pub(super) fn fixed_slot(sockets: BorrowedFd<'_>, slot: Slot) -> [Instruction; 9] {
    [
        Instruction::new(STORE_WORD, FRAME, 0, -4, i32::from(slot.0)),
        Instruction::new(LOAD_WIDE, 2, MAP, 0, sockets.as_raw_fd()),
        Instruction::new(0, 0, 0, 0, 0),
        Instruction::new(MOVE_REGISTER, 3, FRAME, 0, 0),
        Instruction::new(ADD, 3, 0, 0, -4),
        Instruction::new(MOVE, 4, 0, 0, 0),
        Instruction::new(CALL, 0, 0, 0, SELECT),
        Instruction::new(MOVE, 0, 0, 0, SK_PASS),
        Instruction::new(EXIT, 0, 0, 0, 0),
    ]
}

/// `u32 key = first + (hash * count >> 32);`, and then as above: as even a choice as a program can make
/// that looks nothing up.
pub(super) fn slot_by_hash(sockets: BorrowedFd<'_>, first: Slot, count: u16) -> [Instruction; 13] {
    let [_, rest @ ..] = fixed_slot(sockets, first);
    let choice = [
        Instruction::new(LOAD_WORD, 2, CONTEXT, HASH, 0),
        Instruction::new(MULTIPLY, 2, 0, 0, i32::from(count)),
        Instruction::new(SHIFT_RIGHT, 2, 0, 0, 32),
        Instruction::new(ADD, 2, 0, 0, i32::from(first.0)),
        Instruction::new(STORE_REGISTER, FRAME, 2, -4, 0),
    ];
    let mut program = [Instruction::new(0, 0, 0, 0, 0); 13];
    program[..choice.len()].copy_from_slice(&choice);
    program[choice.len()..].copy_from_slice(&rest);
    program
}

/// How often a program has run while the kernel timed it, and for how long.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Runs {
    count: u64,
    nanos: u64,
}

impl Runs {
    /// Those of a program, which its descriptor tells.
    pub(super) fn of(program: BorrowedFd<'_>) -> Result<Self> {
        let path = format!("/proc/self/fdinfo/{}", program.as_raw_fd());
        let info = fs::read_to_string(path)?;
        let number = |name: &str| -> Result<u64> {
            let lines = info.lines().filter_map(|line| line.split_once(':'));
            let mut values = lines.filter(|(found, _)| *found == name);
            let (_, value) = values.next().context("a program without statistics")?;
            Ok(value.trim().parse()?)
        };
        Ok(Self {
            count: number("run_cnt")?,
            nanos: number("run_time_ns")?,
        })
    }

    pub(super) fn since(self, earlier: Self) -> Self {
        Self {
            count: self.count - earlier.count,
            nanos: self.nanos - earlier.nanos,
        }
    }

    pub(super) fn nanos_each(self) -> f64 {
        float(self.nanos) / float(self.count)
    }
}
