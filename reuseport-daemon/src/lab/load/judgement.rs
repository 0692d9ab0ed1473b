//! Whether what has come is the answer that was asked for.

use crate::lab::wire::Tag;

/// What there is of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// The beginning of one, perhaps.
    Incomplete,
    /// All of it and nothing else, by the server of that label.
    Right(Tag),
    /// Something else, or something more.
    Wrong,
}
