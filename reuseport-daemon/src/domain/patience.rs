//! How long somebody waits for sessions to end, and how often they are counted meanwhile.

use std::time::Duration;

/// The first pause between two counts; it doubles up to [`LONGEST_PAUSE`].
const SHORTEST_PAUSE: Duration = Duration::from_millis(250);

/// The longest pause between two counts.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The patience of one who waits for sessions to end. The kernel reports no such event, so that they
/// are counted again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    limit: Duration,
    pause: Duration,
}

impl Patience {
    /// Patience for that long.
    #[must_use]
    pub fn new(limit: Duration) -> Self {
        Self {
            limit,
            pause: SHORTEST_PAUSE,
        }
    }

    /// How long to pause before the next count; none where the wait is over, because nothing is left
    /// or because the time is up. `left` is what the last count found, if it found out, and `waited`
    /// how long the wait has taken by now. The last pause ends with the patience, so that what is
    /// reported is what was there then.
    #[must_use]
    pub fn pause(&mut self, left: Option<u64>, waited: Duration) -> Option<Duration> {
        let rest = self.limit.saturating_sub(waited);
        if left == Some(0) || rest.is_zero() {
            return None;
        }
        let pause = self.pause.min(rest);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn pauses_grow_to_two_seconds() {
        let mut patience = Patience::new(millis(60_000));
        let pauses: Vec<Duration> = (0..6)
            .filter_map(|_| patience.pause(Some(7), Duration::ZERO))
            .collect();
        assert_eq!(pauses, [250, 500, 1000, 2000, 2000, 2000].map(millis));
    }

    #[test]
    fn nothing_left_ends_the_wait_at_once() {
        let mut patience = Patience::new(millis(60_000));
        assert_eq!(patience.pause(Some(0), Duration::ZERO), None);
    }

    #[test]
    fn a_count_that_failed_is_no_zero() {
        let mut patience = Patience::new(millis(60_000));
        assert_eq!(patience.pause(None, Duration::ZERO), Some(millis(250)));
    }

    #[test]
    fn the_last_count_is_at_the_deadline() {
        let mut patience = Patience::new(millis(1000));
        assert_eq!(patience.pause(Some(7), millis(0)), Some(millis(250)));
        assert_eq!(patience.pause(Some(7), millis(260)), Some(millis(500)));
        assert_eq!(patience.pause(Some(7), millis(770)), Some(millis(230)));
        assert_eq!(patience.pause(Some(7), millis(1000)), None);
        assert_eq!(patience.pause(None, millis(1001)), None);
    }

    #[test]
    fn no_patience_is_one_count() {
        let mut patience = Patience::new(Duration::ZERO);
        assert_eq!(patience.pause(Some(7), Duration::ZERO), None);
    }
}
