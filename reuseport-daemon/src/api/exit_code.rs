//! The exit codes of `reuseportctl`, and which outcome gets which.

use super::{
    client::ClientError,
    wire::{Failure, MigrationResult},
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
        ClientError::Absent { .. } | ClientError::NobodyThere { .. } | ClientError::Gone => {
            UNREACHABLE
        }
        ClientError::Forbidden { .. } => NOT_PERMITTED,
        ClientError::Connect { .. } => UNREACHABLE,
        ClientError::Failure(failure) => of_failure(failure),
        ClientError::Protocol(_) | ClientError::Transport(_) | ClientError::NoResult => FAILED,
    }
}

/// Of a migration that came to an end.
#[must_use]
pub fn of_migration(result: &MigrationResult) -> u8 {
    match result.outcome.as_str() {
        "timed_out" | "rolled_back" => NOT_FINISHED,
        // The other outcomes, and those that a newer daemon may know, are ends that were asked for.
        _ => DONE,
    }
}
