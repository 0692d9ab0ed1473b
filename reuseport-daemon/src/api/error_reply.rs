//! The errors of the interface, as they travel.

use serde::{Deserialize, Serialize};

use super::wire::{Failure, Reason};

/// Why a connection is not served: the daemon has nothing left to serve it with.
pub(super) const SHORT: &str = "short";

/// Why a connection is not served: its user, or everybody, has too many.
pub(super) const TOO_MANY_CONNECTIONS: &str = "too-many-connections";

/// An error reply of `io.reuseportd`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "error", content = "parameters")]
pub(super) enum ErrorReply {
    /// [`Failure::Refused`]
    #[serde(rename = "io.reuseportd.Refused")]
    Refused(Reason),
    /// [`Failure::Unsupported`]
    #[serde(rename = "io.reuseportd.Unsupported")]
    Unsupported(Reason),
    /// [`Failure::NotPermitted`]
    #[serde(rename = "io.reuseportd.NotPermitted")]
    NotPermitted(Reason),
    /// [`Failure::Failed`]
    #[serde(rename = "io.reuseportd.Failed")]
    Failed(Reason),
    /// What came is not a Varlink call.
    #[serde(rename = "io.reuseportd.MalformedRequest")]
    MalformedRequest(Reason),
    /// What came is longer than a call may be.
    #[serde(rename = "io.reuseportd.RequestTooLarge")]
    RequestTooLarge(Reason),
}

impl From<Failure> for ErrorReply {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(reason) => Self::Refused(reason),
            Failure::Unsupported(reason) => Self::Unsupported(reason),
            Failure::NotPermitted(reason) => Self::NotPermitted(reason),
            Failure::Failed(reason) => Self::Failed(reason),
        }
    }
}

impl From<ErrorReply> for Failure {
    fn from(error: ErrorReply) -> Self {
        match error {
            // A call that is too long is the caller's to change, like any other refusal.
            ErrorReply::Refused(reason) | ErrorReply::RequestTooLarge(reason) => {
                Self::Refused(reason)
            }
            ErrorReply::Unsupported(reason) => Self::Unsupported(reason),
            ErrorReply::NotPermitted(reason) => Self::NotPermitted(reason),
            ErrorReply::Failed(reason) | ErrorReply::MalformedRequest(reason) => {
                Self::Failed(reason)
            }
        }
    }
}

/// A reason without a hint.
pub(super) fn reason(code: &str, message: impl Into<String>) -> Reason {
    Reason {
        reason: code.to_owned(),
        message: message.into(),
        hint: None,
    }
}

/// The daemon stops before it has an answer.
pub(super) fn stopping() -> Failure {
    Failure::Failed(reason(
        "stopping",
        "the daemon stops: the call was not finished",
    ))
}
