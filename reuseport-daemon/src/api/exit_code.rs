//! The exit codes of `reuseportctl`, and which outcome gets which.

use super::{
    client::ClientError,
    wire::{Doctor, Failure, MigrationResult},
};

/// Done, or it was that way already.
pub const DONE: u8 = 0;
/// It was tried and went wrong, or `doctor` found an error.
pub const FAILED: u8 = 1;
/// The command line makes no sense (clap's code).
pub const USAGE: u8 = 2;
/// Refused; the reason says what to change, and nothing has changed.
pub const REFUSED: u8 = 3;
/// This kernel can't.
pub const UNSUPPORTED: u8 = 4;
/// Not finished in time or rolled back; nothing is lost.
pub const NOT_FINISHED: u8 = 5;
/// The daemon is not reachable.
pub const UNREACHABLE: u8 = 6;
/// Not permitted.
pub const NOT_PERMITTED: u8 = 7;

/// Of a call that the daemon answered with an error.
#[must_use]
pub fn of_failure(failure: &Failure) -> u8 {
    match failure {
        Failure::Refused(_) => REFUSED,
        Failure::Unsupported(_) => UNSUPPORTED,
        Failure::NotPermitted(_) => NOT_PERMITTED,
        Failure::Failed(_) => FAILED,
    }
}

/// Of a call that did not succeed, for whatever reason.
#[must_use]
pub fn of_error(error: &ClientError) -> u8 {
    match error {
        ClientError::Absent { .. }
        | ClientError::NobodyThere { .. }
        | ClientError::Connect { .. }
        | ClientError::Gone => UNREACHABLE,
        ClientError::Forbidden { .. } => NOT_PERMITTED,
        ClientError::Failure(failure) => of_failure(failure),
        ClientError::Protocol(_) | ClientError::Transport(_) | ClientError::NoResult => FAILED,
    }
}

/// Of a migration that came to an end.
#[must_use]
pub fn of_migration(result: &MigrationResult) -> u8 {
    match result.outcome.as_str() {
        "timed_out" | "rolled_back" | "sessions_left" => NOT_FINISHED,
        // The other outcomes, and those that a newer daemon may know, are ends that were asked for.
        _ => DONE,
    }
}

/// Of an examination.
#[must_use]
pub fn of_doctor(doctor: &Doctor) -> u8 {
    let error = |level: &str| level == "error";
    if doctor.findings.iter().any(|finding| error(&finding.level)) {
        FAILED
    } else {
        DONE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::wire::Finding;

    #[test]
    fn a_migration_that_is_not_finished_has_its_own_code() {
        let code = |outcome: &str| {
            of_migration(&MigrationResult {
                service: "game".to_owned(),
                outcome: outcome.to_owned(),
                ..MigrationResult::default()
            })
        };
        for done in ["done", "unchanged", "dry_run"] {
            assert_eq!(code(done), DONE);
        }
        for not_finished in ["timed_out", "rolled_back", "sessions_left"] {
            assert_eq!(code(not_finished), NOT_FINISHED);
        }
    }

    #[test]
    fn an_examination_fails_on_errors_only() {
        let code = |levels: &[&str]| {
            let findings = levels.iter().map(|level| Finding {
                subject: "kernel".to_owned(),
                level: (*level).to_owned(),
                message: "so".to_owned(),
                hint: None,
            });
            of_doctor(&Doctor {
                findings: findings.collect(),
            })
        };
        assert_eq!(code(&[]), DONE);
        assert_eq!(code(&["ok", "note", "warning"]), DONE);
        assert_eq!(code(&["ok", "error"]), FAILED);
    }
}
