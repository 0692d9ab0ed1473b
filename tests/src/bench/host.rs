//! Where it was measured: a number without its machine says little.

use std::{fs, thread};

use anyhow::{Context, Result};
use rustix::system::uname;

use super::rounds::Effort;

/// The machine, its kernel, and what else it had to do, in one sentence.
///
/// # Errors
///
/// Where `/proc` does not tell.
pub(super) fn describe(effort: Effort) -> Result<String> {
    let kernel = uname().release().to_string_lossy().into_owned();
    let cpus = thread::available_parallelism()?;
    let model = fs::read_to_string("/proc/cpuinfo")?
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .and_then(|rest| rest.split_once(':'))
        .map_or_else(|| "unknown".to_owned(), |(_, it)| it.trim().to_owned());
    let memory = fs::read_to_string("/proc/meminfo")?;
    let memory = memory.lines().find_map(|it| it.strip_prefix("MemTotal:"));
    let memory = memory.context("MemTotal")?.trim().trim_end_matches(" kB");
    let gigabytes = memory.parse::<u64>()? / (1024 * 1024);
    let load = fs::read_to_string("/proc/loadavg")?;
    let load = load.split(' ').next().unwrap_or_default();
    let run = match effort {
        Effort::Quick => "`--quick`",
        Effort::Full => "The full run",
    };
    Ok(format!(
        "{run}, Linux {kernel}, {cpus} CPUs ({model}), {gigabytes} GB; load average before: {load}"
    ))
}
