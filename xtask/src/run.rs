//! Running other programs, and saying so.

use std::{
    env,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::paths;

/// What separates the flags in `CARGO_ENCODED_RUSTFLAGS`, which leaves spaces to paths.
pub(crate) const SEPARATOR: char = '\x1f';

/// The cargo that runs this, started in `directory`.
pub(crate) fn cargo(directory: &Path) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(directory);
    command
}

/// A cargo subcommand from `PATH`, or built once into the target directory, with more `options` of
/// `cargo install`.
pub(crate) fn tool(name: &str, version: &str, options: &[&str]) -> Result<PathBuf> {
    if let Some(found) = paths::on_path(name) {
        return Ok(found);
    }
    let own = paths::tools().join("bin").join(name);
    if !own.is_file() {
        let mut install = cargo(paths::root());
        install.args(["install", name, "--version", version, "--locked"]);
        run(install.args(options).arg("--root").arg(paths::tools()))?;
    }
    Ok(own)
}

/// One line for whoever watches.
pub(crate) fn say(line: &str) {
    // Nobody watches where this fails.
    let _ = writeln!(io::stderr().lock(), "xtask: {line}");
}

/// A line of what is being watched, as it is.
pub(crate) fn show(line: &str) {
    // Nobody watches where this fails.
    let _ = writeln!(io::stdout().lock(), "{line}");
}

/// Shows the command, runs it, and takes any end but success for an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let line = line(command);
    say(&line);
    let status = command
        .status()
        .with_context(|| format!("could not start `{line}`"))?;
    if !status.success() {
        bail!("`{line}` ended with {status}");
    }
    Ok(())
}

/// Runs the command in silence and returns what it prints.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let line = line(command);
    let output = command
        .output()
        .with_context(|| format!("could not start `{line}`"))?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr);
        bail!("`{line}` ended with {}: {}", output.status, reason.trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{line}` printed other than UTF-8"))
}

/// The command as one would type it in the checkout.
pub(crate) fn line(command: &Command) -> String {
    let directory = command
        .get_current_dir()
        .filter(|directory| *directory != paths::root())
        .map(|directory| format!("cd {} && ", directory.display()));
    let words = command
        .get_envs()
        .filter_map(|(name, value)| Some(format!("{}={}", name.display(), quoted(value?))))
        .chain([quoted(command.get_program())])
        .chain(command.get_args().map(quoted));
    let words: Vec<String> = words.collect();
    directory.unwrap_or_default() + &words.join(" ")
}

fn quoted(word: &std::ffi::OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else if word.contains(SEPARATOR) {
        format!("$'{}'", word.replace(SEPARATOR, r"\x1f"))
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}
