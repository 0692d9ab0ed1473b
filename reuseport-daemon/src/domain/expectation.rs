//! How long a unit that runs is expected to listen, and how often it is looked whether it does.

use std::time::Duration;

/// What part of the time that has passed the next pause takes. A server is therefore found in at most
/// that part more than the time that it took itself.
const PART: u32 = 8;

/// The first pauses are that long.
const SHORTEST: Duration = Duration::from_millis(2);

/// And no pause is longer.
const LONGEST: Duration = Duration::from_secs(30);

/// A unit that does not listen for so long is not looked at again before something happens to it.
const LIMIT: Duration = Duration::from_secs(3600);

/// How long to pause before the next look at a unit that something happened to so long ago; none
/// where it is no longer expected to listen.
#[must_use]
pub fn next_look(since: Duration) -> Option<Duration> {
    (since < LIMIT).then(|| (since / PART).clamp(SHORTEST, LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_are_few_and_never_far_off() {
        let mut now = Duration::ZERO;
        let mut looks = 0;
        while let Some(pause) = next_look(now) {
            assert!(pause <= (now / PART).max(SHORTEST), "{pause:?} at {now:?}");
            now += pause;
            looks += 1;
        }
        assert!(now >= LIMIT && now < LIMIT + LONGEST);
        assert!(looks < 250, "{looks}");
    }
}
