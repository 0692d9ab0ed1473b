//! A socket option in the words of setsockopt(2): whatever a server of the world may have set.

use std::{fmt, io, os::fd::BorrowedFd, str::FromStr};

use thiserror::Error;

use crate::sys::listen_options::set_raw;

/// An option and its value, written `LEVEL:OPTION:HEX`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketOption {
    /// Such as `SOL_SOCKET`.
    pub level: i32,
    /// Such as `SO_MARK`.
    pub option: i32,
    /// The bytes of its value.
    pub value: Vec<u8>,
}

/// Text that is not an option.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is not LEVEL:OPTION:HEX")]
pub struct SocketOptionError(String);

impl SocketOption {
    /// An option whose value is an `int`.
    #[must_use]
    pub fn number(level: i32, option: i32, value: i32) -> Self {
        Self {
            level,
            option,
            value: value.to_ne_bytes().to_vec(),
        }
    }

    pub(super) fn set(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        set_raw(socket, self.level, self.option, &self.value)
    }
}

impl fmt::Display for SocketOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:", self.level, self.option)?;
        self.value.iter().try_for_each(|it| write!(f, "{it:02x}"))
    }
}

impl FromStr for SocketOption {
    type Err = SocketOptionError;

    fn from_str(text: &str) -> Result<Self, SocketOptionError> {
        parse(text).ok_or_else(|| SocketOptionError(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<SocketOption> {
    let (level, rest) = text.split_once(':')?;
    let (option, digits) = rest.split_once(':')?;
    let (pairs, odd) = digits.as_bytes().as_chunks::<2>();
    let byte = |pair: &[u8; 2]| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok();
    let value = pairs.iter().map(byte).collect::<Option<_>>()?;
    if !odd.is_empty() {
        return None;
    }
    Some(SocketOption {
        level: level.parse().ok()?,
        option: option.parse().ok()?,
        value,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        let option = SocketOption::number(1, 36, -2);
        assert_eq!(option.to_string().parse(), Ok(option));
        for text in ["", "1:2", "1:2:3", "1:2:xy", "a:2:00", "1:b:00"] {
            assert!(text.parse::<SocketOption>().is_err(), "{text}");
        }
        assert!("1:2:".parse::<SocketOption>().is_ok());
    }
}
