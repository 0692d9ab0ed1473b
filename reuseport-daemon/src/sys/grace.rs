//! Waiting until no packet is being processed that has seen the old steering table.

use std::{fs, io};

use rustix::thread::{MembarrierCommand, membarrier, membarrier_query};
use thiserror::Error;

/// Why this kernel gives no grace period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum GraceError {
    /// `membarrier(MEMBARRIER_CMD_GLOBAL)` is not offered.
    #[error(
        "membarrier(MEMBARRIER_CMD_GLOBAL) is not available, as with nohz_full= on the kernel's \
         command line or a system call filter"
    )]
    NotOffered,
    /// A lone CPU under `PREEMPT_RT`, where the call returns at once and packets can be preempted.
    #[error(
        "membarrier(MEMBARRIER_CMD_GLOBAL) waits for nothing on a real-time kernel with one CPU"
    )]
    LoneRealtimeCpu,
}

/// The proof that this kernel offers a wait for an RCU grace period.
///
/// `MEMBARRIER_CMD_GLOBAL` is `synchronize_rcu()`
/// (<https://elixir.bootlin.com/linux/v6.18/source/kernel/sched/membarrier.c>), which returns only
/// after every section that held the RCU read lock, or had bottom halves off, when it was called has
/// ended. A TCP packet is inside one from before the reuseport program runs until its handshake is
/// in the table that `sock_diag` reads, so that afterwards no handshake of the old choice is hidden.
///
/// The kernel refuses it with `nohz_full` CPUs (EINVAL, and the query leaves it out). With one CPU
/// online it returns at once: no packet can be half processed then while this thread runs, unless
/// the kernel is `PREEMPT_RT`, whose bottom halves can be preempted.
#[derive(Clone, Copy, Debug)]
pub struct GracePeriod(());

impl GracePeriod {
    /// Asks the kernel.
    ///
    /// # Errors
    ///
    /// When there is no such wait here.
    pub fn probe() -> Result<Self, GraceError> {
        if !membarrier_query().contains_command(MembarrierCommand::Global) {
            return Err(GraceError::NotOffered);
        }
        if is_realtime() && has_lone_cpu() {
            return Err(GraceError::LoneRealtimeCpu);
        }
        Ok(Self(()))
    }

    /// Blocks the thread for one grace period: about 12 ms on an idle machine, more on a busy one.
    ///
    /// # Errors
    ///
    /// None that the kernel is known to give after [`Self::probe`] went well.
    pub fn wait(&self) -> io::Result<()> {
        Ok(membarrier(MembarrierCommand::Global)?)
    }
}

fn is_realtime() -> bool {
    fs::read_to_string("/sys/kernel/realtime").is_ok_and(|text| text.trim() == "1")
}

/// The list of CPUs reads `0` or `0-3` or `0,2-3`.
fn has_lone_cpu() -> bool {
    fs::read_to_string("/sys/devices/system/cpu/online")
        .is_ok_and(|list| !list.contains(['-', ',']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grace_period_ends() {
        match GracePeriod::probe() {
            Ok(grace) => grace.wait().expect("a grace period"),
            Err(error) => assert!(
                error == GraceError::LoneRealtimeCpu
                    || membarrier(MembarrierCommand::Global).is_err(),
                "{error}, although the call is granted"
            ),
        }
    }
}
