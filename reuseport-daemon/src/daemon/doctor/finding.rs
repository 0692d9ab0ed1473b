//! What is said of one thing that was looked at.

use crate::api::wire;

/// How much it weighs, the worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// As it should be.
    Ok,
    /// Worth knowing, and nothing to do.
    Note,
    /// It works, and not in every case.
    Warning,
    /// Something that was asked for does not work.
    Error,
}

impl Level {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) subject: String,
    pub(super) level: Level,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl Finding {
    pub(super) fn ok(subject: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Level::Ok, subject, message)
    }

    pub(super) fn note(subject: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Level::Note, subject, message)
    }

    pub(super) fn warning(subject: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Level::Warning, subject, message)
    }

    pub(super) fn error(subject: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Level::Error, subject, message)
    }

    pub(super) fn new(
        level: Level,
        subject: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            subject: subject.into(),
            level,
            message: message.into(),
            hint: None,
        }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl From<Finding> for wire::Finding {
    fn from(finding: Finding) -> Self {
        Self {
            subject: finding.subject,
            level: finding.level.as_str().to_owned(),
            message: finding.message,
            hint: finding.hint,
        }
    }
}

/// As they travel: the worst first, and otherwise in the order in which they were found.
pub(super) fn by_weight(mut findings: Vec<Finding>) -> wire::Doctor {
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.level));
    wire::Doctor {
        findings: findings.into_iter().map(wire::Finding::from).collect(),
    }
}

/// A number and its noun: `1 listener`, `2 listeners`.
pub(super) fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// A list in words, of which only the first few are named: `pid 4`, `pids 4 and 7`.
pub(super) fn list<T: ToString>(noun: &str, items: &[T]) -> String {
    const NAMED: usize = 4;
    let mut words: Vec<String> = items.iter().take(NAMED).map(T::to_string).collect();
    if items.len() > NAMED {
        words.push(format!("{} more", items.len() - NAMED));
    }
    let plural = if items.len() == 1 { "" } else { "s" };
    let last = words.pop().unwrap_or_default();
    if words.is_empty() {
        format!("{noun}{plural} {last}")
    } else {
        format!("{noun}{plural} {} and {last}", words.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_comes_first_and_the_rest_stays_in_order() {
        let doctor = by_weight(vec![
            Finding::ok("a", "1"),
            Finding::warning("b", "2"),
            Finding::note("c", "3"),
            Finding::error("d", "4").hint("5"),
            Finding::warning("e", "6"),
        ]);
        let told: Vec<_> = doctor
            .findings
            .iter()
            .map(|it| (it.subject.as_str(), it.level.as_str(), it.hint.as_deref()))
            .collect();
        assert_eq!(
            told,
            [
                ("d", "error", Some("5")),
                ("b", "warning", None),
                ("e", "warning", None),
                ("c", "note", None),
                ("a", "ok", None),
            ]
        );
    }

    #[test]
    fn a_long_list_is_cut() {
        assert_eq!(list("pid", &[4]), "pid 4");
        assert_eq!(list("pid", &[4, 7]), "pids 4 and 7");
        assert_eq!(list("pid", &[4, 7, 9, 10]), "pids 4, 7, 9 and 10");
        assert_eq!(
            list("pid", &[1, 2, 3, 4, 5, 6]),
            "pids 1, 2, 3, 4 and 2 more"
        );
        assert_eq!(count(1, "listener"), "1 listener");
        assert_eq!(count(0, "listener"), "0 listeners");
    }
}
