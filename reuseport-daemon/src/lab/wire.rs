//! What a lab client and a lab server say to each other: a request of 16 bytes, an answer of 32.

use std::{array, fmt, str::FromStr};

use thiserror::Error;

use crate::domain::{Label, NameError};

/// Size of a request in bytes.
pub const REQUEST_LEN: usize = 16;

/// Size of an answer in bytes.
pub const ANSWER_LEN: usize = 32;

/// Longest label of a lab server, in bytes.
pub const TAG_LEN: usize = 24;

const MAGIC: [u8; 4] = *b"lab1";
const ONE_SHOT: [u8; 4] = *b"once";
const SESSION: [u8; 4] = *b"more";

/// Which request it is: never used twice by one load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// What the server does with the connection once it has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// It closes.
    Close,
    /// It waits for the next request.
    KeepOpen,
}

/// A client's request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// The id to answer.
    pub id: RequestId,
    /// What follows.
    pub after: After,
}

impl Request {
    /// As it goes over the wire.
    #[must_use]
    pub fn encode(self) -> [u8; REQUEST_LEN] {
        let kind = match self.after {
            After::Close => ONE_SHOT,
            After::KeepOpen => SESSION,
        };
        let mut bytes = [0; REQUEST_LEN];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..8].copy_from_slice(&kind);
        bytes[8..].copy_from_slice(&self.id.0.to_be_bytes());
        bytes
    }

    /// Reads one; `None` for anything that no lab client sends.
    #[must_use]
    pub fn decode(bytes: &[u8; REQUEST_LEN]) -> Option<Self> {
        let after = match &bytes[4..8] {
            kind if kind == ONE_SHOT => After::Close,
            kind if kind == SESSION => After::KeepOpen,
            _ => return None,
        };
        let id = RequestId(u64::from_be_bytes(bytes[8..].try_into().ok()?));
        (bytes[..4] == MAGIC).then_some(Self { id, after })
    }
}

/// A server's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The request's id.
    pub id: RequestId,
    /// Who answers.
    pub tag: Tag,
}

impl Answer {
    /// As it goes over the wire.
    #[must_use]
    pub fn encode(self) -> [u8; ANSWER_LEN] {
        let mut bytes = [0; ANSWER_LEN];
        bytes[..8].copy_from_slice(&self.id.0.to_be_bytes());
        bytes[8..].copy_from_slice(&self.tag.0);
        bytes
    }

    /// Reads one; `None` where the label is none.
    #[must_use]
    pub fn decode(bytes: &[u8; ANSWER_LEN]) -> Option<Self> {
        let id = RequestId(u64::from_be_bytes(array::from_fn(|i| bytes[i])));
        let tag = Tag(array::from_fn(|i| bytes[8 + i]));
        tag.as_str().parse::<Tag>().ok()?;
        Some(Self { id, tag })
    }
}

/// A lab server's label, small and `Copy` because millions of answers carry one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag([u8; TAG_LEN]);

/// A label that a lab server cannot have.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TagError {
    /// No instance could have it either.
    #[error("{0:?} is not a label")]
    NotALabel(String, #[source] NameError),
    /// It is longer than an answer has room for.
    #[error("{0:?} is longer than {TAG_LEN} bytes")]
    TooLong(String),
}

impl Tag {
    /// `v` and a number.
    #[must_use]
    pub fn of_number(number: u32) -> Self {
        let mut bytes = [0; TAG_LEN];
        // Eleven digits at most, where there is room for more.
        let text = format!("v{number}");
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Self(bytes)
    }

    /// The label as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let end = self.0.iter().position(|b| *b == 0).unwrap_or(TAG_LEN);
        str::from_utf8(&self.0[..end]).unwrap_or_default()
    }
}

impl FromStr for Tag {
    type Err = TagError;

    fn from_str(text: &str) -> Result<Self, TagError> {
        text.parse::<Label>()
            .map_err(|why| TagError::NotALabel(text.to_owned(), why))?;
        let mut bytes = [0; TAG_LEN];
        bytes
            .get_mut(..text.len())
            .ok_or_else(|| TagError::TooLong(text.to_owned()))?
            .copy_from_slice(text.as_bytes());
        Ok(Self(bytes))
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_answers_come_back_as_they_went() {
        for after in [After::Close, After::KeepOpen] {
            let request = Request {
                id: RequestId(0x0123_4567_89ab_cdef),
                after,
            };
            assert_eq!(Request::decode(&request.encode()), Some(request));
        }
        let tag = "v2.1@blue".parse::<Tag>().expect("label");
        let answer = Answer {
            id: RequestId(7),
            tag,
        };
        assert_eq!(Answer::decode(&answer.encode()), Some(answer));
        assert_eq!(tag.to_string(), "v2.1@blue");
    }

    #[test]
    fn what_is_neither_is_refused() {
        assert_eq!(Request::decode(b"GET / HTTP/1.1\r\n"), None);
        assert_eq!(Request::decode(b"lab1oops\0\0\0\0\0\0\0\0"), None);
        assert_eq!(Request::decode(b"lab2once\0\0\0\0\0\0\0\0"), None);
        assert_eq!(Answer::decode(&[0; ANSWER_LEN]), None);
        assert_eq!(Answer::decode(&[0xff; ANSWER_LEN]), None);
    }

    #[test]
    fn labels_that_do_not_fit() {
        let longest = "x".repeat(TAG_LEN);
        assert_eq!(longest.parse::<Tag>().expect("fits").as_str(), longest);
        let longer = "x".repeat(TAG_LEN + 1);
        assert_eq!(longer.parse::<Tag>(), Err(TagError::TooLong(longer)));
        assert!("".parse::<Tag>().is_err());
        assert!("a b".parse::<Tag>().is_err());
    }
}
