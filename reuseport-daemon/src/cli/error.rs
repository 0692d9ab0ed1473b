//! Why a command did not succeed.

use std::io;

use thiserror::Error;

use crate::{
    api::{client::ClientError, exit_code, wire::Failure},
    chain::chain,
    demo::DemoError,
    lab::server::ServerError,
};

/// A command that did not succeed.
#[derive(Debug, Error)]
pub(super) enum CliError {
    /// The call did not succeed.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The demo could not go on.
    #[error(transparent)]
    Demo(#[from] DemoError),
    /// One of the demo's servers.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// A bug.
    #[error("a thread of this program has panicked")]
    Panicked,
    /// What came back could not be printed.
    #[error("the output cannot be written")]
    Output(#[from] io::Error),
}

/// An error in the parts in which it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Explained {
    /// What kind, for programs: it goes with the exit code.
    pub(super) kind: &'static str,
    /// A short name for programs.
    pub(super) reason: String,
    /// `what: why`
    pub(super) message: String,
    /// What to do about it.
    pub(super) hint: Option<String>,
}

impl CliError {
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Client(error) => exit_code::of_error(error),
            Self::Demo(DemoError::NotRoot) => exit_code::NOT_PERMITTED,
            Self::Demo(_) | Self::Server(_) | Self::Panicked | Self::Output(_) => exit_code::FAILED,
        }
    }

    pub(super) fn explain(&self) -> Explained {
        match self {
            Self::Client(ClientError::Failure(failure)) => explain_failure(failure),
            Self::Client(error) => explain_client(error),
            Self::Demo(error) => explain_demo(error),
            Self::Server(_) => failed("server", self),
            Self::Panicked => failed("panicked", self),
            Self::Output(_) => failed("output", self),
        }
    }
}

fn failed(reason: &str, error: &dyn std::error::Error) -> Explained {
    Explained {
        kind: "failed",
        reason: reason.to_owned(),
        message: chain(error),
        hint: None,
    }
}

fn explain_demo(error: &DemoError) -> Explained {
    let (kind, reason, hint) = match error {
        DemoError::NotRoot => (
            "not_permitted",
            "not-root",
            Some("it makes network namespaces and loads eBPF programs: `sudo reuseportctl demo`"),
        ),
        DemoError::NoDaemon(_) => (
            "failed",
            "no-daemon",
            Some("reuseportctl and reuseportd belong in the same directory"),
        ),
        DemoError::NoProgram(_)
        | DemoError::World(_)
        | DemoError::Server(_)
        | DemoError::Daemon(_)
        | DemoError::Sysctl(_)
        | DemoError::Load(_)
        | DemoError::Stuck => ("failed", "demo", None),
    };
    Explained {
        kind,
        hint: hint.map(str::to_owned),
        ..failed(reason, error)
    }
}

fn explain_failure(failure: &Failure) -> Explained {
    let (kind, reason) = match failure {
        Failure::Refused(reason) => ("refused", reason),
        Failure::Unsupported(reason) => ("unsupported", reason),
        Failure::NotPermitted(reason) => ("not_permitted", reason),
        Failure::Failed(reason) => ("failed", reason),
    };
    Explained {
        kind,
        reason: reason.reason.clone(),
        message: reason.message.clone(),
        hint: reason.hint.clone(),
    }
}

fn explain_client(error: &ClientError) -> Explained {
    const START: &str = "start reuseportd, or name its socket with --socket";
    const VERSIONS: &str = "reuseportctl and the running reuseportd may be of different versions";
    let (kind, reason, hint) = match error {
        ClientError::Absent { .. } => ("unreachable", "no-socket", Some(START)),
        ClientError::NobodyThere { .. } => ("unreachable", "nobody-there", Some(START)),
        ClientError::Forbidden { .. } => (
            "not_permitted",
            "socket-forbidden",
            Some("look at the modes of the socket and of the directories above it"),
        ),
        ClientError::Connect { .. } => ("unreachable", "connect", None),
        ClientError::Gone => (
            "unreachable",
            "connection-ended",
            Some("the daemon may have been restarted; `reuseportctl status` shows where it stands"),
        ),
        ClientError::Protocol(_) => ("failed", "protocol", Some(VERSIONS)),
        ClientError::Transport(_) | ClientError::NoResult => ("failed", "answer", Some(VERSIONS)),
        ClientError::Failure(failure) => return explain_failure(failure),
    };
    Explained {
        kind,
        reason: reason.to_owned(),
        message: format!("cannot talk to reuseportd: {}", chain(error)),
        hint: hint.map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::wire::Reason;

    #[test]
    fn every_failure_has_its_kind_and_code() {
        let reason = Reason {
            reason: "r".to_owned(),
            message: "what: why".to_owned(),
            hint: None,
        };
        let cases = [
            (Failure::Failed(reason.clone()), "failed", 1),
            (Failure::Refused(reason.clone()), "refused", 3),
            (Failure::Unsupported(reason.clone()), "unsupported", 4),
            (Failure::NotPermitted(reason), "not_permitted", 7),
        ];
        for (failure, kind, code) in cases {
            let error = CliError::Client(ClientError::Failure(failure));
            assert_eq!(error.explain().kind, kind);
            assert_eq!(error.explain().message, "what: why");
            assert_eq!(error.exit_code(), code);
        }
    }

    #[test]
    fn a_daemon_that_is_not_there_is_unreachable() {
        let error = CliError::Client(ClientError::Absent {
            path: "/nowhere".into(),
            source: io::Error::from_raw_os_error(libc::ENOENT),
        });
        let explained = error.explain();
        assert_eq!(error.exit_code(), exit_code::UNREACHABLE);
        assert_eq!(
            explained.message,
            "cannot talk to reuseportd: there is no socket at /nowhere: \
             No such file or directory (os error 2)"
        );
        assert_eq!(explained.kind, "unreachable");
        assert!(explained.hint.is_some());
    }
}
