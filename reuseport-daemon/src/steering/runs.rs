//! What a group's program counts.

use std::borrow::Borrow;

use aya::maps::{MapData, PerCpuArray};
use reuseport_common::{Cause, Outcome, names, outcome_index};

use super::{SteeringError, maps::wrap};

/// How often a group's program ran, by outcome and cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Runs([[u64; Outcome::ALL.len()]; Cause::ALL.len()]);

impl Runs {
    /// What a program's counters say.
    pub(super) fn read(
        counters: &PerCpuArray<impl Borrow<MapData>, u64>,
    ) -> Result<Self, SteeringError> {
        let mut runs = Self::default();
        for cause in Cause::ALL {
            for outcome in Outcome::ALL {
                let index = outcome_index(outcome, cause);
                runs.0[cause as usize][outcome as usize] = sum(counters, index, names::OUTCOMES)?;
            }
        }
        Ok(runs)
    }

    /// So many runs of one kind, for tests.
    #[cfg(test)]
    pub(crate) fn once(outcome: Outcome, cause: Cause, count: u64) -> Self {
        let mut runs = Self::default();
        runs.0[cause as usize][outcome as usize] = count;
        runs
    }

    /// Runs of one kind.
    #[must_use]
    pub fn of(&self, outcome: Outcome, cause: Cause) -> u64 {
        self.0[cause as usize][outcome as usize]
    }

    /// The sum of two.
    #[must_use]
    pub fn plus(mut self, other: &Self) -> Self {
        for (row, theirs) in self.0.iter_mut().zip(other.0) {
            for (count, their) in row.iter_mut().zip(theirs) {
                *count += their;
            }
        }
        self
    }

    /// What has come since `earlier`.
    #[must_use]
    pub fn since(mut self, earlier: &Self) -> Self {
        for (row, theirs) in self.0.iter_mut().zip(earlier.0) {
            for (count, their) in row.iter_mut().zip(theirs) {
                *count = count.saturating_sub(their);
            }
        }
        self
    }
}

/// One counter, over all CPUs.
pub(super) fn sum(
    counters: &PerCpuArray<impl Borrow<MapData>, u64>,
    index: u32,
    map: &'static str,
) -> Result<u64, SteeringError> {
    let per_cpu = counters.get(&index, 0).map_err(wrap("read", map))?;
    Ok(per_cpu.iter().sum())
}
