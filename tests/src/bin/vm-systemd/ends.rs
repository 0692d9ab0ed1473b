//! What ends, and how, while players play.

use anyhow::{Result, ensure};
use reuseport_daemon::lab::load::Load;

use super::{
    game::{
        CLIENTS, Witness, advance, churn, complete, complete_but_for, sessions, unit, until_serving,
    },
    machine::{property, restarts, systemctl, until, until_unit},
};

const DAEMON: &str = "reuseportd.service";
const ROUNDS: u32 = 3;

/// `systemctl restart reuseportd` costs nothing.
pub(crate) fn daemon_restarted() -> Result<()> {
    without_loss(|| systemctl(&["restart", DAEMON]).map(|_| ()))
}

/// Nor does its being killed.
pub(crate) fn daemon_killed() -> Result<()> {
    without_loss(|| again(DAEMON, || kill("KILL", DAEMON)))
}

/// One that hangs is ended by systemd's watchdog, and started anew.
pub(crate) fn daemon_hangs() -> Result<()> {
    let players = churn()?;
    again(DAEMON, || kill("STOP", DAEMON))?;
    until_serving("v3")?;
    advance(&players, 50)?;
    complete(players)?;
    let told = super::run("journalctl", &["-o", "cat", "-u", DAEMON])?;
    ensure!(told.contains("Watchdog timeout"), "{told}");
    Ok(())
}

/// The old process answers who it has let in, and who it has not gets to the new one. What can be lost
/// is what the kernel resets while a listener is closed, and so hardly ever one.
pub(crate) fn server_restarted() -> Result<()> {
    let players = churn()?;
    for _ in 0..ROUNDS {
        systemctl(&["restart", &unit("v3")])?;
        until_serving("v3")?;
        advance(&players, 50)?;
    }
    tell("restarted", players, ROUNDS)
}

pub(crate) fn server_killed() -> Result<()> {
    let server = unit("v3");
    let players = churn()?;
    for _ in 0..ROUNDS {
        again(&server, || kill("KILL", &server))?;
        until_serving("v3")?;
        advance(&players, 50)?;
    }
    tell("killed", players, CLIENTS * ROUNDS)
}

/// Both at once. What had been let in ends with the server; what waits is with the service manager.
pub(crate) fn both_killed() -> Result<()> {
    let server = unit("v3");
    let players = churn()?;
    for _ in 0..ROUNDS {
        let daemon = property(DAEMON, "MainPID")?;
        again(&server, || {
            systemctl(&["kill", "--signal", "KILL", &server, DAEMON]).map(|_| ())
        })?;
        until("the daemon is started anew", || {
            Ok(property(DAEMON, "MainPID")? != daemon)
        })?;
        until_unit(DAEMON, "active")?;
        until_serving("v3")?;
        advance(&players, 50)?;
    }
    tell("killed with the daemon", players, CLIENTS * ROUNDS)
}

/// Does it some times under players who come and players who stay, none of whom may notice.
fn without_loss(end: impl Fn() -> Result<()>) -> Result<()> {
    let held = sessions()?;
    let mut witness = Witness::with("v3")?;
    let players = churn()?;
    for _ in 0..ROUNDS {
        end()?;
        until_serving("v3")?;
        advance(&players, 50)?;
        witness.go_on()?;
    }
    held.stop()?.sessions.check_complete()?;
    complete(players)?;
    Ok(())
}

fn kill(signal: &str, unit: &str) -> Result<()> {
    systemctl(&["kill", "--signal", signal, unit]).map(|_| ())
}

/// Does something over which systemd starts a unit anew, and waits until it has.
fn again(unit: &str, end: impl FnOnce() -> Result<()>) -> Result<()> {
    let before = (restarts(unit)?, property(unit, "MainPID")?);
    end()?;
    until(&format!("{unit} is started anew"), || {
        Ok(restarts(unit)? > before.0 && property(unit, "MainPID")? != before.1)
    })?;
    until_unit(unit, "active")
}

fn tell(what: &str, players: Load, most: u32) -> Result<()> {
    let ledger = complete_but_for(players, most)?;
    super::say(&format!(
        "{what} {ROUNDS} times: {} connections, {} lost that it had let in, longest {} ms",
        ledger.begun(),
        ledger.lost(),
        ledger.longest().as_millis()
    ));
    Ok(())
}
