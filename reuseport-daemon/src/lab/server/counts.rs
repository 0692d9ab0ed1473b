//! What a lab server counts.

use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

/// What a lab server did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Connections accepted.
    pub accepted: u64,
    /// Requests answered.
    pub answered: u64,
    /// Connections that ended before they had asked for anything, or asked for something odd.
    pub without_request: u64,
    /// Connections that the client left or lost after an answer.
    pub ended_by_client: u64,
    /// Connections that were still open when the server ended, all of them answered before.
    pub open_at_end: u64,
    /// Connections that had not had an answer when the server ended.
    pub unanswered_at_end: u64,
    /// Listeners that were closed by somebody else: their `accept` failed.
    pub listeners_lost: u64,
    /// Times that `accept` failed otherwise, such as for want of descriptors.
    pub accept_errors: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.accepted += other.accepted;
        self.answered += other.answered;
        self.without_request += other.without_request;
        self.ended_by_client += other.ended_by_client;
        self.open_at_end += other.open_at_end;
        self.unanswered_at_end += other.unanswered_at_end;
        self.listeners_lost += other.listeners_lost;
        self.accept_errors += other.accept_errors;
    }
}
