//! Signals by name.

use std::{fmt, str::FromStr};

use rustix::process::Signal as Raw;
use thiserror::Error;

/// Names without `SIG`, as `kill -l` gives them; aliases after the name that is shown.
const NAMES: [(&str, Raw); 33] = [
    ("HUP", Raw::HUP),
    ("INT", Raw::INT),
    ("QUIT", Raw::QUIT),
    ("ILL", Raw::ILL),
    ("TRAP", Raw::TRAP),
    ("ABRT", Raw::ABORT),
    ("IOT", Raw::ABORT),
    ("BUS", Raw::BUS),
    ("FPE", Raw::FPE),
    ("KILL", Raw::KILL),
    ("USR1", Raw::USR1),
    ("SEGV", Raw::SEGV),
    ("USR2", Raw::USR2),
    ("PIPE", Raw::PIPE),
    ("ALRM", Raw::ALARM),
    ("TERM", Raw::TERM),
    ("STKFLT", Raw::STKFLT),
    ("CHLD", Raw::CHILD),
    ("CONT", Raw::CONT),
    ("STOP", Raw::STOP),
    ("TSTP", Raw::TSTP),
    ("TTIN", Raw::TTIN),
    ("TTOU", Raw::TTOU),
    ("URG", Raw::URG),
    ("XCPU", Raw::XCPU),
    ("XFSZ", Raw::XFSZ),
    ("VTALRM", Raw::VTALARM),
    ("PROF", Raw::PROF),
    ("WINCH", Raw::WINCH),
    ("IO", Raw::IO),
    ("POLL", Raw::IO),
    ("PWR", Raw::POWER),
    ("SYS", Raw::SYS),
];

/// Text or a number that is no signal. Real-time signals have no fixed numbers and are not taken.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is not a signal, such as QUIT, SIGQUIT or 3")]
pub struct SignalError(String);

/// A signal that a process can be sent, written `QUIT`, `SIGQUIT` or `3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal(Raw);

impl Signal {
    /// The signal's number, as a record keeps it.
    #[must_use]
    pub fn number(self) -> u32 {
        self.0.as_raw().unsigned_abs()
    }

    pub(super) fn raw(self) -> Raw {
        self.0
    }
}

impl TryFrom<u32> for Signal {
    type Error = SignalError;

    fn try_from(number: u32) -> Result<Self, SignalError> {
        i32::try_from(number)
            .ok()
            .and_then(Raw::from_named_raw)
            .map(Self)
            .ok_or_else(|| SignalError(number.to_string()))
    }
}

impl FromStr for Signal {
    type Err = SignalError;

    fn from_str(text: &str) -> Result<Self, SignalError> {
        if let Ok(number) = text.parse::<u32>() {
            return Self::try_from(number);
        }
        let upper = text.to_ascii_uppercase();
        let short = upper.strip_prefix("SIG").unwrap_or(&upper);
        NAMES
            .iter()
            .find(|(name, _)| *name == short)
            .map(|(_, signal)| Self(*signal))
            .ok_or_else(|| SignalError(text.to_owned()))
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(_, signal)| *signal == self.0) {
            Some((name, _)) => write!(f, "SIG{name}"),
            None => write!(f, "signal {}", self.number()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_has_three_spellings() {
        for text in ["QUIT", "SIGQUIT", "3", "sigquit", "Quit"] {
            let signal: Signal = text.parse().expect(text);
            assert_eq!(signal.number(), 3);
            assert_eq!(signal.to_string(), "SIGQUIT");
        }
        let io: Signal = "POLL".parse().expect("POLL");
        assert_eq!(io.to_string(), "SIGIO");
    }

    #[test]
    fn every_signal_is_there_and_back() {
        for number in 1..32 {
            let signal = Signal::try_from(number).expect("a signal");
            assert_eq!(signal.number(), number);
            assert_eq!(signal.to_string().parse(), Ok(signal));
        }
    }

    #[test]
    fn what_is_no_signal_is_refused() {
        for text in [
            "",
            "SIG",
            "0",
            "32",
            "64",
            "-3",
            "4294967299",
            "RTMIN",
            "SIGSIGQUIT",
        ] {
            assert_eq!(text.parse::<Signal>(), Err(SignalError(text.to_owned())));
        }
    }
}
