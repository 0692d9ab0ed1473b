//! What an examination found, the worst first.

use anstyle::Style;

use super::style::{ERROR, GOOD, HEADING, NOTE, WARNING, count, paint};
use crate::api::wire::{Doctor, Finding};

/// The levels from the worst on, each with its heading.
const LEVELS: [(&str, &str, Style); 4] = [
    ("error", "errors", ERROR),
    ("warning", "warnings", WARNING),
    ("note", "notes", NOTE),
    ("ok", "in order", GOOD),
];

pub(in crate::cli) fn doctor(doctor: &Doctor) -> String {
    let mut text = String::new();
    for (level, heading, style) in LEVELS {
        let found: Vec<_> = at(doctor, level).collect();
        if found.is_empty() {
            continue;
        }
        text.push_str(&paint(style, heading));
        text.push('\n');
        for finding in found {
            text.push_str(&entry(finding));
        }
        text.push('\n');
    }
    text.push_str(&verdict(doctor));
    text.push('\n');
    text
}

/// The findings of a level. One that this version does not know is a note.
fn at<'a>(doctor: &'a Doctor, level: &'a str) -> impl Iterator<Item = &'a Finding> {
    doctor.findings.iter().filter(move |finding| {
        let known = LEVELS.iter().any(|(known, ..)| *known == finding.level);
        finding.level == level || (!known && level == "note")
    })
}

fn entry(finding: &Finding) -> String {
    let subject = paint(HEADING, &finding.subject);
    let text = format!("  {subject}: {}\n", finding.message);
    match &finding.hint {
        Some(hint) => format!("{text}    hint: {hint}\n"),
        None => text,
    }
}

fn verdict(doctor: &Doctor) -> String {
    let number = |level| at(doctor, level).count() as u64;
    match (number("error"), number("warning")) {
        (0, 0) => paint(GOOD, "all is well"),
        (0, warnings) => paint(
            WARNING,
            format!("it works, with {}", count(warnings, "warning")),
        ),
        (errors, 0) => paint(ERROR, count(errors, "error")),
        (errors, warnings) => paint(
            ERROR,
            format!(
                "{} and {}",
                count(errors, "error"),
                count(warnings, "warning")
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::style::plain, *};

    fn finding(level: &str, subject: &str, hint: Option<&str>) -> Finding {
        Finding {
            subject: subject.to_owned(),
            level: level.to_owned(),
            message: "so it is".to_owned(),
            hint: hint.map(str::to_owned),
        }
    }

    #[test]
    fn the_worst_comes_first_and_the_verdict_last() {
        let found = Doctor {
            findings: vec![
                finding("ok", "bpffs", None),
                finding("warning", "somaxconn", Some("raise it")),
                finding("error", "kernel", Some("take a newer one")),
                finding("curious", "clock", None),
            ],
        };
        assert_eq!(
            plain(&doctor(&found)),
            "errors\n  kernel: so it is\n    hint: take a newer one\n\n\
             warnings\n  somaxconn: so it is\n    hint: raise it\n\n\
             notes\n  clock: so it is\n\n\
             in order\n  bpffs: so it is\n\n\
             1 error and 1 warning\n"
        );
    }

    #[test]
    fn without_errors_it_works() {
        let of = |levels: &[&str]| {
            let findings = levels.iter().map(|level| finding(level, "x", None));
            plain(&verdict(&Doctor {
                findings: findings.collect(),
            }))
        };
        assert_eq!(of(&["ok", "note"]), "all is well");
        assert_eq!(of(&["ok", "warning"]), "it works, with 1 warning");
        assert_eq!(of(&["error", "error"]), "2 errors");
    }
}
