//! The field's own words as types: what has been parsed here needs no second look.

use std::{fmt, str::FromStr};

use reuseport_common::NAME_LEN;
use thiserror::Error;

/// A name that cannot be one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    /// Nothing there.
    #[error("it is empty")]
    Empty,
    /// More bytes than a record has room for.
    #[error("it is longer than {max} characters")]
    TooLong {
        /// The most that fits.
        max: usize,
    },
    /// A character outside the allowed ones.
    #[error("it has {found:?}; allowed are letters, digits and {allowed:?}")]
    Character {
        /// The first character that is not allowed.
        found: char,
        /// Punctuation that is.
        allowed: &'static str,
    },
    /// It starts with punctuation.
    #[error("it does not start with a letter or digit")]
    Start,
}

fn check(text: &str, allowed: &'static str) -> Result<(), NameError> {
    let first = text.chars().next().ok_or(NameError::Empty)?;
    if text.len() >= NAME_LEN {
        return Err(NameError::TooLong { max: NAME_LEN - 1 });
    }
    if let Some(found) = text
        .chars()
        .find(|c| !c.is_ascii_alphanumeric() && !allowed.contains(*c))
    {
        return Err(NameError::Character { found, allowed });
    }
    if first.is_ascii_alphanumeric() {
        Ok(())
    } else {
        Err(NameError::Start)
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $allowed:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                check(text, $allowed)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// What the operator calls a service. It is also the name of a directory on a bpffs, where a
    /// dot is not allowed.
    ServiceName,
    "_-"
);
name!(
    /// What the operator calls an instance, unique within its service.
    Label,
    "_-.:@+"
);

impl Label {
    /// The label of an instance that was given none.
    #[must_use]
    pub fn of_generation(generation: Generation) -> Self {
        Self(format!("g{generation}"))
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// The number that an instance gets when it registers; rises by one within a service, from 1.
    Generation(u32)
);
number!(
    /// An index of a group's `REUSEPORT_SOCKARRAY`. A listener keeps its slot for life.
    Slot(u16)
);
number!(
    /// `SO_COOKIE`: a listener's identity, never used twice while the machine is up.
    SocketCookie(u64)
);
number!(
    /// A user id in the initial user namespace.
    Uid(u32)
);

/// A process that cannot be confused with a later one of the same pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId {
    /// The pid in the daemon's pid namespace.
    pub pid: u32,
    /// When it started, in clock ticks after boot (`/proc/PID/stat`, field 22).
    pub start_time: u64,
}

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pid {}", self.pid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_where_they_enter() {
        assert!("game-1_eu".parse::<ServiceName>().is_ok());
        assert!("v2.1+g00d@7".parse::<Label>().is_ok());
        assert_eq!("".parse::<ServiceName>(), Err(NameError::Empty));
        assert_eq!("-x".parse::<ServiceName>(), Err(NameError::Start));
        assert_eq!(
            "a.b".parse::<ServiceName>(),
            Err(NameError::Character {
                found: '.',
                allowed: "_-"
            })
        );
        assert!("a/b".parse::<Label>().is_err());
        assert!("ä".parse::<Label>().is_err());
        assert!("x".repeat(NAME_LEN - 1).parse::<Label>().is_ok());
        assert_eq!(
            "x".repeat(NAME_LEN).parse::<Label>(),
            Err(NameError::TooLong { max: NAME_LEN - 1 })
        );
    }
}
