//! How long requests took: how many in which time, so that millions of them take no more room than a
//! few.

use std::{collections::BTreeMap, time::Duration};

/// Times between a power of two and the next are told apart in this many steps: to within 1.6 %.
const STEPS: u64 = 64;

/// Times, by how often they occurred.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latencies {
    counts: BTreeMap<u64, u64>,
    longest: Duration,
}

impl Latencies {
    /// Enters a time.
    pub fn record(&mut self, time: Duration) {
        *self.counts.entry(step_of(time)).or_default() += 1;
        self.longest = self.longest.max(time);
    }

    /// Takes in others.
    pub fn merge(&mut self, other: &Self) {
        for (step, count) in &other.counts {
            *self.counts.entry(*step).or_default() += count;
        }
        self.longest = self.longest.max(other.longest);
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.values().sum()
    }

    /// The longest, to the nanosecond.
    #[must_use]
    pub fn longest(&self) -> Duration {
        self.longest
    }

    /// The time that all but one in `times` do not exceed: 1,000 for the 99.9th percentile. Of none it
    /// is zero.
    #[must_use]
    pub fn exceeded_once_in(&self, times: u64) -> Duration {
        let longer = self.count() / times.max(1);
        let mut seen = 0;
        for (step, count) in self.counts.iter().rev() {
            seen += count;
            if seen > longer {
                return end_of(*step).min(self.longest);
            }
        }
        Duration::ZERO
    }
}

/// The step that a time falls into. Below twice the number of steps each nanosecond has its own.
fn step_of(time: Duration) -> u64 {
    let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let halvings = (nanos / STEPS).checked_ilog2().unwrap_or(0);
    u64::from(halvings) * STEPS + (nanos >> halvings)
}

/// The longest time of a step.
fn end_of(step: u64) -> Duration {
    let halvings = (step / STEPS).saturating_sub(1);
    let place = step - halvings * STEPS;
    Duration::from_nanos(((place + 1) << halvings) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_ends_its_step_to_within_a_part_of_it() {
        let mut last = 0;
        for nanos in (0..10_000).chain([123_456, 1 << 30, u64::MAX / 3]) {
            let step = step_of(Duration::from_nanos(nanos));
            assert!(step >= last, "{nanos}");
            last = step;
            let end = u64::try_from(end_of(step).as_nanos()).expect("64 bits");
            assert!(
                end >= nanos && end - nanos <= nanos / STEPS,
                "{nanos}: {end}"
            );
        }
    }

    #[test]
    fn percentiles_count_from_the_longest() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.exceeded_once_in(1000), Duration::ZERO);
        for millis in 1..=1000 {
            latencies.record(Duration::from_millis(millis));
        }
        let near = |found: Duration, millis: u64| {
            let expected = Duration::from_millis(millis);
            found >= expected && found <= expected + expected / 64
        };
        assert!(near(latencies.exceeded_once_in(2), 500));
        assert!(near(latencies.exceeded_once_in(100), 990));
        assert!(near(latencies.exceeded_once_in(1000), 999));
        assert_eq!(latencies.exceeded_once_in(u64::MAX), latencies.longest());
        let mut twice = latencies.clone();
        twice.merge(&latencies);
        assert_eq!(twice.count(), 2000);
        assert_eq!(twice.exceeded_once_in(2), latencies.exceeded_once_in(2));
    }
}
