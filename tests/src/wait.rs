//! Waiting for what nothing tells of, with a deadline.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use crate::stage::DEADLINE;

/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Waits until something is so.
///
/// # Errors
///
/// Where it cannot be looked at, or is not so by the [`DEADLINE`].
pub fn until(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + DEADLINE;
    while !is_so()? {
        ensure!(Instant::now() < end, "not within {DEADLINE:?}: {what}");
        thread::sleep(LOOK_EVERY);
    }
    Ok(())
}
