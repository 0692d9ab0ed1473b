//! The machine: its commands, its units, its console.

use std::{
    io::{self, Write as _},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use reuseport_tests::wait;

/// How long anything may take here, where instructions may be emulated.
pub(crate) const DEADLINE: Duration = Duration::from_secs(180);

/// A line on the console.
pub(crate) fn say(line: &str) {
    // Nobody listens where this fails.
    let _ = writeln!(io::stdout().lock(), "{line}");
}

/// Runs a program that must succeed, and returns what it prints.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("start {program}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{program} {arguments:?}: {}: {text}{error}",
        output.status
    );
    Ok(text)
}

pub(crate) fn systemctl(arguments: &[&str]) -> Result<String> {
    run("systemctl", arguments)
}

/// A property of a unit's.
pub(crate) fn property(unit: &str, name: &str) -> Result<String> {
    let value = systemctl(&["show", "--value", "--property", name, unit])?;
    Ok(value.trim().to_owned())
}

/// How often systemd has started a unit again by itself.
fn restarts(unit: &str) -> Result<u32> {
    Ok(property(unit, "NRestarts")?.parse()?)
}

/// Waits until a unit is in that state.
pub(crate) fn until_unit(unit: &str, state: &str) -> Result<()> {
    until(&format!("{unit} is {state}"), || {
        Ok(property(unit, "ActiveState")? == state)
    })
}

/// Waits with this machine's patience.
pub(crate) fn until(what: &str, holds: impl FnMut() -> Result<bool>) -> Result<()> {
    wait::until_within(DEADLINE, what, holds)
}

/// Does something over which systemd starts a unit anew, and waits until it has.
pub(crate) fn again(unit: &str, end: impl FnOnce() -> Result<()>) -> Result<()> {
    let before = (restarts(unit)?, property(unit, "MainPID")?);
    end()?;
    until(&format!("{unit} is started anew"), || {
        Ok(restarts(unit)? > before.0 && property(unit, "MainPID")? != before.1)
    })?;
    until_unit(unit, "active")
}
