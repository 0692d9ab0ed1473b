//! Versions come and go.

use std::{
    fs,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use super::{
    game::{
        SERVICE, SESSIONS, Witness, advance, churn, complete, ctl, label, sessions, status, unit,
        until_serving, until_waiting,
    },
    machine::{again, run, systemctl, until, until_unit},
};

const CONFIGURATION: &str = "\
[service.game]
listen = [\"0.0.0.0:7777\"]
user = \"game\"
park = true
park-timeout = \"10m\"
instances = \"game@*.service\"
";

/// A unit of the configured pattern serves without anybody registering it, and who came before it did
/// has waited.
pub(crate) fn comes_by_itself() -> Result<()> {
    fs::write("/etc/reuseportd/reuseportd.toml", CONFIGURATION)?;
    systemctl(&["restart", "reuseportd"])?;
    let early = std::thread::spawn(|| Witness::with("v1"));
    until_waiting(1)?;
    systemctl(&["enable", "--now", &unit("v1")])?;
    until_serving("v1")?;
    let early = early.join().ok().context("the first player")?;
    early?.go_on()?;
    let about = run("journalctl", &["-o", "cat", "REUSEPORTD_SERVICE=game"])?;
    ensure!(
        about.contains("instance registered service=game instance=game@v1.service"),
        "{about}"
    );
    complete(churn()?)?;
    Ok(())
}

pub(crate) fn deployed() -> Result<()> {
    deploy("v1", "v2")
}

pub(crate) fn deployed_again() -> Result<()> {
    deploy("v2", "v3")
}

/// With sessions: who is there stays with the old version to the end, who comes gets the new one, and
/// the old one is stopped when the last has gone.
fn deploy(old: &str, new: &str) -> Result<()> {
    let held = sessions()?;
    let mut witness = Witness::with(old)?;
    let players = churn()?;
    let mut script = Command::new("/srv/game/deploy.sh")
        .args([old, new])
        .stdin(Stdio::null())
        .spawn()
        .context("start the script")?;
    until_serving(new)?;
    until("the migration is over", || {
        Ok(status()?.migration.is_none())
    })?;
    let moved = players.mark();
    advance(&players, 100)?;
    advance(&held, 2 * u64::from(SESSIONS))?;
    witness.go_on()?;
    ensure!(
        script.try_wait()?.is_none(),
        "nobody waits for the sessions"
    );
    let kept = held.stop()?.sessions;
    kept.check_complete()?;
    ensure!(
        kept.by_label().keys().eq([&label(old)?]),
        "{:?}",
        kept.by_label()
    );
    witness.go_on()?;
    drop(witness);
    until("the script is done", || Ok(script.try_wait()?.is_some()))?;
    ensure!(script.wait()?.success(), "the script has failed");
    until_unit(&unit(old), "inactive")?;
    advance(&players, 20)?;
    let ledger = complete(players)?;
    let after = ledger.begun_since(moved);
    ensure!(after.keys().eq([&label(new)?]), "{after:?}");
    super::say(&format!(
        "{old} to {new}: {} connections and {} moves of {SESSIONS} sessions, 0 lost",
        ledger.begun(),
        kept.begun()
    ));
    Ok(())
}

/// There and back again, where the daemon tells the old server to end, whose user is another one.
/// systemd starts it anew, to stand by.
pub(crate) fn retired_by_a_signal() -> Result<()> {
    systemctl(&["start", &unit("v4")])?;
    let players = churn()?;
    for (old, new) in [("v3", "v4"), ("v4", "v3")] {
        let target = unit(new);
        let migrate = ["migrate", SERVICE, "--to-unit", &target];
        again(&unit(old), || {
            ctl(&[&migrate[..], &["--retire", "signal:TERM"]].concat()).map(|_| ())
        })?;
        until_serving(new)?;
        advance(&players, 50)?;
    }
    complete(players)?;
    systemctl(&["stop", &unit("v4")]).map(|_| ())
}

/// What is enabled comes back, and nobody has to say anything.
pub(crate) fn serves_after_a_reboot() -> Result<()> {
    until_serving("v4")?;
    ctl(&["doctor"])?;
    let mut witness = Witness::with("v4")?;
    let ledger = complete(churn()?)?;
    witness.go_on()?;
    ensure!(ledger.by_label().keys().eq([&label("v4")?]));
    Ok(())
}
