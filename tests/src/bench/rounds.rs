//! Rounds: what is compared is measured in turn, so that whatever else the machine does meets all
//! sides alike.

use anyhow::Result;
use clap::ValueEnum;

/// How much time it may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Effort {
    /// A minute for everything: enough to see whether it works.
    Quick,
    /// Ten minutes for everything: enough to rely on.
    Full,
}

impl Effort {
    /// What it means here.
    pub(super) fn of<T>(self, quick: T, full: T) -> T {
        match self {
            Self::Quick => quick,
            Self::Full => full,
        }
    }
}

/// Measures each side once a round, and gives what each side came to, round by round. Every other round
/// goes backwards, so that none is always the first after another.
pub(super) fn interleaved<S, T>(
    rounds: usize,
    sides: &[S],
    mut measure: impl FnMut(&S) -> Result<T>,
) -> Result<Vec<Vec<T>>> {
    let mut values: Vec<Vec<T>> = sides.iter().map(|_| Vec::new()).collect();
    for round in 0..rounds {
        for place in 0..sides.len() {
            let side = if round.is_multiple_of(2) {
                place
            } else {
                sides.len() - 1 - place
            };
            values[side].push(measure(&sides[side])?);
        }
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_take_turns() {
        let mut order = Vec::new();
        let values = interleaved(3, &['a', 'b'], |side| {
            order.push(*side);
            Ok(order.len())
        });
        assert_eq!(order, ['a', 'b', 'b', 'a', 'a', 'b']);
        assert_eq!(values.expect("no error"), [[1, 4, 5], [2, 3, 6]]);
    }
}
