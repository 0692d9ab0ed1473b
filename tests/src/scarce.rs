//! A running daemon that is left with few descriptors.

use std::{collections::BTreeSet, fs, thread, time::Duration};

use anyhow::{Context, Result};
use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::stage::Stage;

/// A limit of open files, for as long as this lives.
#[derive(Debug)]
pub struct Scarce {
    pid: Pid,
    before: Rlimit,
}

impl Scarce {
    /// Leaves the stage's daemon as many descriptors as it has open, and `more`.
    ///
    /// # Errors
    ///
    /// Where it is gone.
    pub fn descriptors(stage: &Stage, more: usize) -> Result<Self> {
        let pid = stage.daemon().pid();
        let mut open = numbers(pid)?;
        // What it has open for a moment only is free the next.
        for _ in 0..LOOKS {
            thread::sleep(BETWEEN);
            open = &open & &numbers(pid)?;
        }
        // The limit is for numbers. Those above it stay open, and those below it that are free are
        // still to be had.
        let limit = (0..).filter(|it| !open.contains(it)).nth(more);
        let pid = Pid::from_raw(i32::try_from(pid)?).context("a pid")?;
        let before = prlimit(
            Some(pid),
            Resource::Nofile,
            Rlimit {
                current: limit,
                ..limits(pid)?
            },
        )?;
        Ok(Self { pid, before })
    }
}

/// How often it is looked at what the daemon has open, beside the first time.
const LOOKS: u32 = 20;

/// From one look to the next. The daemon looks at sockets every 50 ms, for a millisecond or two.
const BETWEEN: Duration = Duration::from_millis(7);

impl Drop for Scarce {
    fn drop(&mut self) {
        // It fails where the daemon has ended.
        let _ = prlimit(Some(self.pid), Resource::Nofile, self.before);
    }
}

/// The numbers of the descriptors that a process has open.
fn numbers(pid: u32) -> Result<BTreeSet<u64>> {
    let mut open = BTreeSet::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let name = entry?.file_name();
        open.insert(name.to_str().context("a number")?.parse()?);
    }
    Ok(open)
}

/// What the limits of a process are.
fn limits(pid: Pid) -> Result<Rlimit> {
    let text = fs::read_to_string(format!("/proc/{}/limits", pid.as_raw_nonzero()))?;
    let line = text
        .lines()
        .find_map(|it| it.strip_prefix("Max open files"));
    let mut numbers = line.context("a limit")?.split_whitespace();
    let mut next = || Ok::<_, anyhow::Error>(Some(numbers.next().context("a number")?.parse()?));
    Ok(Rlimit {
        current: next()?,
        maximum: next()?,
    })
}
