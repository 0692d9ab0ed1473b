//! What a process uses: processors and memory.

use std::{fs, time::Duration};

use anyhow::{Context, Result};
use nix::{
    time::{clock_getcpuclockid, clock_gettime},
    unistd::Pid,
};

/// How long all its threads have had a processor, those that have ended included.
///
/// # Errors
///
/// Where it is gone.
pub fn cpu(pid: u32) -> Result<Duration> {
    let clock = clock_getcpuclockid(Pid::from_raw(pid.try_into()?))?;
    Ok(clock_gettime(clock)?.into())
}

/// How often its threads have been given a processor and left it again.
///
/// # Errors
///
/// Where it is gone.
pub fn switches(pid: u32) -> Result<u64> {
    let mut sum = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        // One that has ended meanwhile is none.
        if let Ok(status) = fs::read_to_string(thread?.path().join("status")) {
            sum += number(&status, "voluntary_ctxt_switches")?;
            sum += number(&status, "nonvoluntary_ctxt_switches")?;
        }
    }
    Ok(sum)
}

/// How many threads it has.
///
/// # Errors
///
/// Where it is gone.
pub fn threads(pid: u32) -> Result<usize> {
    Ok(fs::read_dir(format!("/proc/{pid}/task"))?.count())
}

/// Its resident memory, in KiB.
///
/// # Errors
///
/// Where it is gone.
pub fn resident(pid: u32) -> Result<u64> {
    status(pid, "VmRSS")
}

/// Resident memory of its own, in KiB: not what it maps of files.
///
/// # Errors
///
/// Where it is gone.
pub fn resident_of_its_own(pid: u32) -> Result<u64> {
    status(pid, "RssAnon")
}

fn status(pid: u32, name: &str) -> Result<u64> {
    number(&fs::read_to_string(format!("/proc/{pid}/status"))?, name)
}

/// A number of a `status` file, which may be followed by its unit.
fn number(status: &str, name: &str) -> Result<u64> {
    let mut lines = status.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = lines
        .find(|(found, _)| *found == name)
        .with_context(|| format!("no {name}"))?;
    let number = value.split_whitespace().next().context("a number")?;
    Ok(number.parse()?)
}
