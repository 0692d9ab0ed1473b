//! A row of the table: what is asked, and what must come back.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result, ensure};
use reuseport_tests::{
    control,
    ctl::{Ctl, Ran},
    stage::Stage,
};
use serde_json::{Value, json};

/// A row.
pub(super) struct Row<'a> {
    /// What is wrong. Rows with the same cause may be told the same.
    pub(super) cause: &'static str,
    question: Question<'a>,
    expected: Expected,
}

/// What is asked.
enum Question<'a> {
    /// A command line of `reuseportctl`, perhaps another user's.
    Command { line: String, uid: Option<u32> },
    /// Bytes, and descriptors with them.
    Bytes {
        bytes: Vec<u8>,
        fds: Vec<BorrowedFd<'a>>,
    },
    /// Bytes, and then the end of the stream.
    Half(Vec<u8>),
}

/// What must come back.
#[derive(Clone, Copy)]
enum Expected {
    /// Exit code 2, and clap's own words.
    Usage,
    /// An exit code and a reason.
    Code(i32, &'static str),
    /// An error's name, and what its one parameter that is for programs says.
    Error(&'static str, &'static str),
    /// The end of the connection.
    Hangup,
}

/// What came back: the reason or the error's name, and the message.
pub(super) type Said = (String, String);

/// What came back, and from a command its exit code.
pub(super) struct Asked {
    pub(super) said: Said,
    pub(super) code: Option<i32>,
}

/// A command that is refused (exit code 3).
pub(super) fn refused(
    cause: &'static str,
    line: impl Into<String>,
    reason: &'static str,
) -> Row<'static> {
    fails(cause, line, 3, reason)
}

/// A command that ends with that exit code.
pub(super) fn fails(
    cause: &'static str,
    line: impl Into<String>,
    code: i32,
    reason: &'static str,
) -> Row<'static> {
    let line = line.into();
    Row {
        cause,
        question: Question::Command { line, uid: None },
        expected: Expected::Code(code, reason),
    }
}

/// A command that another user may not give.
pub(super) fn forbidden(cause: &'static str, uid: u32, line: impl Into<String>) -> Row<'static> {
    let line = line.into();
    let uid = Some(uid);
    Row {
        cause,
        question: Question::Command { line, uid },
        expected: Expected::Code(7, "not-permitted"),
    }
}

/// A command line that makes no sense (exit code 2).
pub(super) fn usage(cause: &'static str, line: impl Into<String>) -> Row<'static> {
    let line = line.into();
    Row {
        cause,
        question: Question::Command { line, uid: None },
        expected: Expected::Usage,
    }
}

/// A call of the interface that is refused.
pub(super) fn call(
    cause: &'static str,
    member: &str,
    parameters: &Value,
    reason: &'static str,
) -> Row<'static> {
    bytes(
        cause,
        control::call(member, parameters),
        "io.reuseportd.Refused",
        reason,
    )
}

/// A registration by descriptors that is refused.
pub(super) fn passed<'a>(
    cause: &'static str,
    service: &str,
    fds: &[&'a OwnedFd],
    reason: &'static str,
) -> Row<'a> {
    Row {
        cause,
        question: Question::Bytes {
            bytes: control::call("Register", &json!({"service": service})),
            fds: fds.iter().map(|it| (*it).as_fd()).collect(),
        },
        expected: Expected::Error("io.reuseportd.Refused", reason),
    }
}

/// Bytes that are answered with that error.
pub(super) fn bytes(
    cause: &'static str,
    bytes: Vec<u8>,
    error: &'static str,
    detail: &'static str,
) -> Row<'static> {
    let fds = Vec::new();
    Row {
        cause,
        question: Question::Bytes { bytes, fds },
        expected: Expected::Error(error, detail),
    }
}

/// Bytes after which the client goes away.
pub(super) fn half(cause: &'static str, bytes: Vec<u8>) -> Row<'static> {
    Row {
        cause,
        question: Question::Half(bytes),
        expected: Expected::Hangup,
    }
}

impl<'a> Row<'a> {
    /// The same, with descriptors.
    pub(super) fn with(mut self, more: &[&'a OwnedFd]) -> Self {
        if let Question::Bytes { fds, .. } = &mut self.question {
            fds.extend(more.iter().map(|it| (*it).as_fd()));
        }
        self
    }

    /// What is asked, for a message.
    pub(super) fn asked(&self) -> String {
        match &self.question {
            Question::Command { line, uid: None } => line.clone(),
            Question::Command {
                line,
                uid: Some(uid),
            } => format!("as uid {uid}: {line}"),
            Question::Bytes { bytes, fds } => {
                let start = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]);
                format!("{start:?} with {} descriptors", fds.len())
            }
            Question::Half(bytes) => format!("{:?} and no more", String::from_utf8_lossy(bytes)),
        }
    }

    /// Asks, and checks what comes back.
    pub(super) fn ask(&self, stage: &Stage) -> Result<Asked> {
        let socket = stage.home().socket();
        match &self.question {
            Question::Command { line, uid } => {
                let ctl = Ctl::of(stage.home())?;
                let ctl = uid.map_or(ctl.clone(), |uid| ctl.run_by(uid));
                self.ask_command(&ctl, line)
            }
            Question::Bytes { bytes, fds } => {
                self.check_answer(control::ask(&socket, bytes, fds)?.as_ref())
            }
            Question::Half(bytes) => {
                self.check_answer(control::break_off(&socket, bytes)?.as_ref())
            }
        }
    }

    /// Asks twice, once for people and once for programs: a refusal changes nothing.
    fn ask_command(&self, ctl: &Ctl, line: &str) -> Result<Asked> {
        let text = ctl.run(line)?;
        let said = match self.expected {
            Expected::Usage => check_usage(&text)?,
            Expected::Code(code, reason) => {
                let json = ctl.run(&format!("--json {line}"))?;
                check_command(&text, &json, code, reason)?
            }
            Expected::Error(..) | Expected::Hangup => unreachable!("not of a command"),
        };
        let code = Some(text.code);
        Ok(Asked { said, code })
    }

    fn check_answer(&self, answer: Option<&Value>) -> Result<Asked> {
        let said = match (self.expected, answer) {
            (Expected::Hangup, None) => ("hangup".to_owned(), String::new()),
            (Expected::Error(error, detail), Some(answer)) => check_error(answer, error, detail)?,
            (_, answer) => anyhow::bail!("answered with {answer:?}"),
        };
        Ok(Asked { said, code: None })
    }
}

fn check_usage(ran: &Ran) -> Result<Said> {
    ensure!(ran.code == 2 && ran.out.is_empty(), "{ran:?}");
    ensure!(ran.err.starts_with("error: "), "{ran:?}");
    Ok(("usage".to_owned(), ran.err.clone()))
}

fn check_command(text: &Ran, json: &Ran, code: i32, reason: &str) -> Result<Said> {
    ensure!(text.code == code && text.out.is_empty(), "{text:?}");
    ensure!(json.code == code && json.err.is_empty(), "{json:?}");
    let error = &json.result()?["error"];
    let kind = match code {
        1 => "failed",
        3 => "refused",
        6 => "unreachable",
        7 => "not_permitted",
        other => anyhow::bail!("no kind goes with exit code {other}"),
    };
    ensure!(
        error["kind"] == kind && error["reason"] == reason,
        "{error}"
    );
    let message = error["message"].as_str().context("a message")?;
    // A migration tells that it has begun to look before it tells what it has found.
    let told = |line: &&str| !line.starts_with("preflight after ");
    let mut lines = text.err.lines().filter(told);
    ensure!(
        lines.next() == Some(&format!("error: {message}")),
        "{text:?}"
    );
    match error["hint"].as_str() {
        Some(hint) => ensure!(lines.next() == Some(&format!("hint: {hint}")), "{text:?}"),
        None => ensure!(lines.next().is_none(), "{text:?}"),
    }
    Ok((reason.to_owned(), message.to_owned()))
}

fn check_error(answer: &Value, error: &str, detail: &str) -> Result<Said> {
    /// What tells a program which it is, of ours and of `org.varlink.service`.
    const DETAILS: [&str; 4] = ["reason", "parameter", "method", "interface"];
    ensure!(answer["error"] == error, "{answer}");
    let parameters = &answer["parameters"];
    let found = DETAILS.iter().find_map(|name| parameters[name].as_str());
    ensure!(found.unwrap_or_default() == detail, "{answer}");
    let message = parameters["message"].as_str().unwrap_or(detail);
    Ok((error.to_owned(), message.to_owned()))
}
