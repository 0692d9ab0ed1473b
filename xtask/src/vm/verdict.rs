//! What the init says at its end.

use anyhow::{Result, bail};

/// How the line begins.
const MARK: &str = "vm: passed=";

/// How many tests ended in which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    passed: u64,
    failed: u64,
    skipped: u64,
}

impl Verdict {
    /// The verdict in a line of the console, if it is one.
    pub(super) fn find(line: &str) -> Option<Self> {
        let mut counts = line.strip_prefix(MARK)?.split_whitespace();
        let verdict = Self {
            passed: counts.next()?.parse().ok()?,
            failed: counts.next()?.strip_prefix("failed=")?.parse().ok()?,
            skipped: counts.next()?.strip_prefix("skipped=")?.parse().ok()?,
        };
        counts.next().is_none().then_some(verdict)
    }

    /// Both together.
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            skipped: self.skipped + other.skipped,
        }
    }

    /// Good if something ran and nothing failed.
    pub(super) fn judge(self) -> Result<()> {
        match self {
            Self { failed: 1.., .. } => bail!("{self}"),
            Self { passed: 0, .. } => bail!("no test has run: {self}"),
            Self { .. } => Ok(()),
        }
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            passed,
            failed,
            skipped,
        } = self;
        write!(f, "passed={passed} failed={failed} skipped={skipped}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(passed: u64, failed: u64, skipped: u64) -> Verdict {
        Verdict {
            passed,
            failed,
            skipped,
        }
    }

    #[test]
    fn a_verdict_is_a_whole_line() {
        let line = "vm: passed=41 failed=0 skipped=1";
        assert_eq!(Verdict::find(line), Some(verdict(41, 0, 1)));
        for other in [
            "vm: passed=41 failed=0",
            "vm: passed=41 failed=0 skipped=1 and more",
            "it said vm: passed=41 failed=0 skipped=1",
            "vm: passed=x failed=0 skipped=1",
            "",
        ] {
            assert_eq!(Verdict::find(other), None, "{other}");
        }
    }

    #[test]
    fn nothing_run_is_a_failure() {
        assert!(verdict(1, 0, 5).judge().is_ok());
        assert!(verdict(0, 0, 5).judge().is_err());
        assert!(verdict(0, 0, 0).judge().is_err());
        assert!(verdict(9, 1, 0).judge().is_err());
    }
}
