//! Telling the service manager that the driver still takes its turns.

use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior, interval};

/// What the service manager's watchdog is told, and when. It is told by the driver's own loop, so
/// that a driver that hangs is noticed, and not only a process that does.
#[derive(Debug)]
pub(super) struct Watchdog(Option<Interval>);

impl Watchdog {
    /// For a service manager that waits for so long, if it does.
    pub(super) fn new(limit: Option<Duration>) -> Self {
        Self(limit.and_then(every))
    }

    /// Resolves when it is time to tell; never where nobody asks.
    pub(super) async fn due(&mut self) {
        match &mut self.0 {
            Some(interval) => _ = interval.tick().await,
            None => std::future::pending().await,
        }
    }
}

/// Twice as often as is asked for, as `sd_watchdog_enabled(3)` says.
fn every(limit: Duration) -> Option<Interval> {
    let half = limit / 2;
    if half.is_zero() {
        return None;
    }
    let mut interval = interval(half);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    Some(interval)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_told_twice_in_the_time_that_it_waits() {
        let mut watchdog = Watchdog::new(Some(Duration::from_secs(30)));
        let begun = tokio::time::Instant::now();
        for expected in [0, 15, 30] {
            watchdog.due().await;
            assert_eq!(begun.elapsed(), Duration::from_secs(expected));
        }
        assert!(every(Duration::from_nanos(1)).is_none());
    }
}
