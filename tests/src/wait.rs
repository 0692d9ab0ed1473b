//! Waiting for something that can only be looked at.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use crate::stage::DEADLINE;

/// Looks again and again until it holds.
///
/// # Errors
///
/// Where it cannot be looked at, or does not hold in good time.
pub fn until(what: &str, holds: impl FnMut() -> Result<bool>) -> Result<()> {
    until_within(DEADLINE, what, holds)
}

/// The same, where what takes no time is not all that it waits for.
///
/// # Errors
///
/// As [`until`].
pub fn until_within(
    deadline: Duration,
    what: &str,
    mut holds: impl FnMut() -> Result<bool>,
) -> Result<()> {
    const LOOK_EVERY: Duration = Duration::from_millis(1);
    let end = Instant::now() + deadline;
    while !holds()? {
        ensure!(Instant::now() < end, "not within {deadline:?}: {what}");
        thread::sleep(LOOK_EVERY);
    }
    Ok(())
}
