//! Where a command's output goes, and in which form.

use std::{
    fmt,
    io::{self, Write},
};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::json;

use super::{error::CliError, render};

/// For people or for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// Text.
    Text,
    /// One JSON object per line.
    Json,
}

/// The two streams that a command writes to.
pub struct Output<'a> {
    out: &'a mut dyn Write,
    err: &'a mut dyn Write,
    /// The line that shows progress, where the binary says that a terminal is there.
    line: Option<ProgressBar>,
    style: Style,
}

impl fmt::Debug for Output<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output")
            .field("style", &self.style)
            .finish_non_exhaustive()
    }
}

impl<'a> Output<'a> {
    /// Results go to `out`; errors, and lines of progress, to `err`. Escape sequences for colours
    /// are written always: the writers are expected to take them out where they do not belong.
    pub fn new(out: &'a mut dyn Write, err: &'a mut dyn Write) -> Self {
        Self {
            out,
            err,
            line: None,
            style: Style::Text,
        }
    }

    /// Shows progress as one line that changes; for a standard error that is a terminal.
    #[must_use]
    pub fn with_progress_line(mut self) -> Self {
        let line = ProgressBar::no_length();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
            line.set_style(style);
        }
        self.line = Some(line);
        self
    }

    pub(super) fn set_style(&mut self, style: Style) {
        self.style = style;
    }

    /// Prints the result: `text` for people, `result` for programs.
    pub(super) fn result<T: Serialize>(
        &mut self,
        result: &T,
        text: impl FnOnce(&T) -> String,
    ) -> io::Result<()> {
        self.clear_line();
        match self.style {
            Style::Json => self.json(result),
            Style::Text => self.out.write_all(text(result).as_bytes()),
        }?;
        self.out.flush()
    }

    /// Shows how far it has come: `text` for people, `progress` for programs.
    pub(super) fn progress<T: Serialize>(
        &mut self,
        progress: &T,
        text: impl FnOnce(&T) -> String,
    ) -> io::Result<()> {
        match (self.style, &self.line) {
            (Style::Json, _) => {
                self.json(&json!({ "progress": progress }))?;
                self.out.flush()
            }
            (Style::Text, Some(line)) => {
                line.set_message(text(progress));
                line.tick();
                Ok(())
            }
            (Style::Text, None) => writeln!(self.err, "{}", text(progress)),
        }
    }

    /// Shows what will soon be shown again: on the line that changes, or for programs.
    pub(super) fn fleeting<T: Serialize>(
        &mut self,
        progress: &T,
        text: impl FnOnce(&T) -> String,
    ) -> io::Result<()> {
        if self.line.is_none() && self.style == Style::Text {
            return Ok(());
        }
        self.progress(progress, text)
    }

    /// Shows an error: the last JSON line for programs, `error:` and `hint:` for people.
    pub(super) fn error(&mut self, error: &CliError) -> io::Result<()> {
        self.clear_line();
        let explained = error.explain();
        match self.style {
            Style::Json => {
                self.json(&json!({"error": {
                    "kind": explained.kind,
                    "reason": explained.reason,
                    "message": explained.message,
                    "hint": explained.hint,
                }}))?;
                self.out.flush()
            }
            Style::Text => self.err.write_all(render::error(&explained).as_bytes()),
        }
    }

    fn json<T: Serialize>(&mut self, value: &T) -> io::Result<()> {
        let mut line = serde_json::to_vec(value)?;
        line.push(b'\n');
        self.out.write_all(&line)
    }

    fn clear_line(&self) {
        if let Some(line) = &self.line {
            line.finish_and_clear();
        }
    }
}
