//! Statistics of a few rounds: medians and quartiles, which one round that met something else does not
//! move.

use std::fmt;

/// What came of several rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Summary {
    /// Half of the rounds had less.
    pub(super) median: f64,
    /// A quarter of them had less.
    pub(super) low: f64,
    /// A quarter of them had more.
    pub(super) high: f64,
}

impl Summary {
    /// Of the rounds' values; of none, it is no number.
    pub(super) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        Self {
            median: quantile(&sorted, 0.5),
            low: quantile(&sorted, 0.25),
            high: quantile(&sorted, 0.75),
        }
    }

    /// Of what was measured one after the other, round by round: `ours` in parts of `others`.
    pub(super) fn of_ratios(ours: &[f64], others: &[f64]) -> Self {
        Self::of(ours.iter().zip(others).map(|(our, other)| our / other))
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { median, low, high } = *self;
        write!(f, "{} ({}–{})", number(median), number(low), number(high))
    }
}

/// The value that a part of the sorted ones does not exceed, between two of them where it falls there.
pub(super) fn quantile(sorted: &[f64], part: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else {
        return f64::NAN;
    };
    let place = part * float(last as u64);
    let below = (0..last)
        .take_while(|it| float(*it as u64 + 1) <= place)
        .count();
    let above = (below + 1).min(last);
    let rest = place - float(below as u64);
    sorted[below] + (sorted[above] - sorted[below]) * rest
}

/// As many digits as anybody reads: three, and thousands set apart.
pub(super) fn number(value: f64) -> String {
    let size = value.abs();
    if !value.is_finite() {
        "–".to_owned()
    } else if size >= 1000.0 {
        grouped(value)
    } else if size >= 100.0 || value.fract() == 0.0 {
        format!("{value:.0}")
    } else if size >= 10.0 {
        format!("{value:.1}")
    } else if size >= 1.0 {
        format!("{value:.2}")
    } else if size >= 0.1 {
        format!("{value:.3}")
    } else {
        format!("{value:.4}")
    }
}

fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0.0 {
        text.insert(0, '-');
    }
    text
}

/// A count as a number to calculate with.
#[expect(clippy::cast_precision_loss, reason = "nothing here comes near 2^52")]
pub(super) fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_and_the_quartiles() {
        let summary = Summary::of([5.0, 1.0, 2.0, 4.0, 3.0]);
        assert_eq!(summary.to_string(), "3 (2–4)");
        let even = Summary::of([1.0, 2.0]);
        assert_eq!(even.to_string(), "1.50 (1.25–1.75)");
        assert_eq!(Summary::of([7.0]).to_string(), "7 (7–7)");
        assert!(Summary::of([]).median.is_nan());
    }

    #[test]
    fn one_round_that_met_something_else_moves_no_ratio() {
        let ratio = Summary::of_ratios(&[2.0, 2.0, 90.0], &[1.0, 1.0, 1.0]);
        assert!((ratio.median - 2.0).abs() < f64::EPSILON);
    }

    #[test]
    fn numbers_have_the_digits_that_matter() {
        let shown = [
            1_234_567.0,
            -1234.4,
            123.4,
            12.34,
            1.234,
            0.0123,
            8.0,
            f64::NAN,
        ]
        .map(number);
        let expected = [
            "1,234,567",
            "-1,234",
            "123",
            "12.3",
            "1.23",
            "0.0123",
            "8",
            "–",
        ];
        assert_eq!(shown, expected);
    }
}
