//! Time: the clock of every deadline that outlives the daemon, and its unit.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Milliseconds since boot, suspended time included (`CLOCK_BOOTTIME`). A deadline that one daemon
/// writes into a pinned map means the same to the next one, and no change of the date moves it.
#[must_use]
pub fn boottime_ms() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    // The kernel never reports a negative time since boot.
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    let nanoseconds = u64::try_from(now.tv_nsec).unwrap_or_default();
    seconds * 1_000 + nanoseconds / 1_000_000
}

/// A duration in whole milliseconds, or the most that there are.
#[must_use]
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_time_since_boot_and_does_not_go_back() {
        let uptime = std::fs::read_to_string("/proc/uptime").expect("uptime");
        let uptime: f64 = uptime
            .split_whitespace()
            .next()
            .and_then(|seconds| seconds.parse().ok())
            .expect("seconds");
        let first = boottime_ms();
        assert!(boottime_ms() >= first);
        // /proc/uptime has hundredths of a second.
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let seconds = first as f64 / 1_000.0;
        assert!(seconds + 0.01 >= uptime && seconds < uptime + 60.0);
    }
}
