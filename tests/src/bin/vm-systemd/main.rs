//! What `cargo xtask integration-test vm --systemd` runs in a machine whose first process is systemd:
//! the package is installed, a game is deployed, restarted, killed and rebooted under a load with a
//! ledger, and the package is taken away again. It runs once for each boot, and each boot has a verdict.

mod deploy;
mod ends;
mod game;
mod machine;
mod package;

use std::{fs, path::Path, process::ExitCode};

use anyhow::{Context as _, Result};

use self::machine::{run, say};

/// How often the machine has been booted.
const BOOTS: &str = "/var/lib/vm-systemd";

type Test = (&'static str, fn() -> Result<()>);

/// In their order: each begins where the one before it ends.
const FIRST_BOOT: [Test; 16] = [
    ("installed", package::installed),
    ("exposure", package::exposure),
    ("hardened", package::hardened),
    ("comes_by_itself", deploy::comes_by_itself),
    ("deployed", deploy::deployed),
    ("deployed_again", deploy::deployed_again),
    ("daemon_restarted", ends::daemon_restarted),
    ("daemon_killed", ends::daemon_killed),
    ("daemon_hangs", ends::daemon_hangs),
    ("server_restarted", ends::server_restarted),
    ("server_killed", ends::server_killed),
    ("both_killed", ends::both_killed),
    (
        "daemon_restarted_while_players_wait",
        ends::daemon_restarted_while_players_wait,
    ),
    (
        "daemon_stopped_while_a_player_waits",
        ends::daemon_stopped_while_a_player_waits,
    ),
    ("retired_by_a_signal", deploy::retired_by_a_signal),
    ("upgraded_during_a_migration", package::upgraded),
];

const SECOND_BOOT: [Test; 2] = [
    ("serves_after_a_reboot", deploy::serves_after_a_reboot),
    ("purged", package::purged),
];

fn main() -> ExitCode {
    let tests: &[Test] = match first_boot() {
        Ok(true) => &FIRST_BOOT,
        Ok(false) => &SECOND_BOOT,
        Err(error) => {
            say(&format!("vm: error: {error:#}"));
            return ExitCode::FAILURE;
        }
    };
    let mut passed = 0;
    let mut failed = 0;
    for (name, test) in tests {
        match test() {
            Ok(()) => {
                passed += 1;
                say(&format!("test {name} ... ok"));
            }
            Err(error) => {
                failed += 1;
                say(&format!("test {name} ... FAILED\n{error:?}"));
                let journal = run("journalctl", &["--no-pager", "--boot", "--lines=80"]);
                say(&journal.unwrap_or_else(|error| format!("{error:#}")));
                // What follows begins where this has not come to.
                break;
            }
        }
    }
    let skipped = tests.len() - passed - failed;
    say(&format!(
        "vm: passed={passed} failed={failed} skipped={skipped}"
    ));
    ExitCode::SUCCESS
}

/// Whether the machine has not been booted before.
fn first_boot() -> Result<bool> {
    let first = !Path::new(BOOTS).exists();
    fs::write(BOOTS, "").context("note the boot")?;
    Ok(first)
}
