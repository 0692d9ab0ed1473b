//! What tests need and not every machine has. Who lacks it is said by name, and who should have it does
//! not get away with lacking it.

use std::env;

use anyhow::{Context, Result, bail, ensure};
use reuseport_daemon::{daemon::examine_machine, sys::migrate_req};
use rustix::system::uname;

/// Programs that a machine was made without, with commas between them.
const WITHOUT: &str = "REUSEPORTD_WITHOUT";

/// By how much slower than others a machine is, where that is known beforehand.
const SCALE: &str = "REUSEPORTD_SCALE";

/// The first Linux that moves a closing listener's connections.
const MIGRATES: (u32, u32) = (5, 14);

/// What a test needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// A program of others.
    Program(&'static str),
    /// A kernel that moves a closing listener's connections.
    Migration,
    /// A kernel that wakes who sleeps at a listener to which it moves connections.
    Wakeful,
    /// A machine of which microseconds can be expected, or thousands of repetitions.
    Speed,
}

impl Need {
    /// Why this machine does not meet it; none where it does.
    ///
    /// # Errors
    ///
    /// Where it should and does not.
    pub fn unmet(self) -> Result<Option<String>> {
        match self {
            Self::Program(name) => {
                let without = env::var(WITHOUT).unwrap_or_default();
                let lacks = without.split(',').any(|it| it == name);
                Ok(lacks.then(|| format!("{name}: this machine was made without it")))
            }
            Self::Migration => {
                if migrate_req::supported()? {
                    return Ok(None);
                }
                let release = uname().release().to_string_lossy().into_owned();
                ensure!(
                    version(&release)? < MIGRATES,
                    "Linux {release} does not move a closing listener's connections, and should"
                );
                let (major, minor) = MIGRATES;
                Ok(Some(format!(
                    "listener migration (Linux {major}.{minor}): Linux {release} has none"
                )))
            }
            Self::Wakeful => Ok(leaves_asleep()?.then(|| {
                "a kernel that wakes who sleeps where it moves connections (CVE-2026-46015)"
                    .to_owned()
            })),
            Self::Speed => Ok((scale()? > 1).then(|| {
                format!("a machine that executes its own instructions: {SCALE} says otherwise")
            })),
        }
    }
}

/// A number of repetitions for this machine: all of them, or the part that a slow one is asked for.
///
/// # Errors
///
/// Where `REUSEPORTD_SCALE` is not a number.
pub fn scaled(repetitions: u32) -> Result<u32> {
    Ok(repetitions.div_ceil(scale()?))
}

/// Whether this kernel leaves acceptors asleep when it moves connections to them, as the daemon finds it
/// out; one that moves none does not.
///
/// # Errors
///
/// Where it cannot be found out.
pub fn leaves_asleep() -> Result<bool> {
    let machine = examine_machine(tempfile::tempdir()?.path());
    let mut findings = machine.findings.iter();
    let Some(finding) = findings.find(|it| it.subject == "queue migration") else {
        ensure!(
            !migrate_req::supported()?,
            "no finding about queues: {machine:?}"
        );
        return Ok(false);
    };
    match finding.level.as_str() {
        "ok" => Ok(false),
        "warning" if finding.message.contains("CVE-2026-46015") => Ok(true),
        _ => bail!("{finding:?}"),
    }
}

fn scale() -> Result<u32> {
    match env::var(SCALE) {
        Ok(text) => {
            let scale = text.parse().with_context(|| format!("{SCALE}={text}"))?;
            ensure!(scale > 0, "{SCALE} is 0");
            Ok(scale)
        }
        Err(_) => Ok(1),
    }
}

fn version(release: &str) -> Result<(u32, u32)> {
    let mut numbers = release
        .split(['.', '-', '+'])
        .map_while(|it| it.parse().ok());
    let major = numbers
        .next()
        .context("a release begins with its version")?;
    Ok((major, numbers.next().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_begins_with_its_version() {
        for (release, expected) in [
            ("5.10.0-32-cloud-amd64", (5, 10)),
            ("6.12.43+deb12-cloud-amd64", (6, 12)),
            ("6.18-rc1", (6, 18)),
            ("7", (7, 0)),
        ] {
            assert_eq!(version(release).expect(release), expected);
        }
        assert!(version("unknown").is_err());
        assert!((5, 10) < MIGRATES && (5, 14) >= MIGRATES && (6, 1) >= MIGRATES);
    }
}
