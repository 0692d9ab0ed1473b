//! What ends, and how, while players play.

use std::{
    io::{ErrorKind, Read as _},
    net::TcpStream,
};

use anyhow::{Result, ensure};
use reuseport_daemon::lab::load::Load;

use super::{
    game::{
        CLIENTS, Witness, address, advance, churn, complete, complete_but_for, sessions, unit,
        until_serving, until_waiting,
    },
    machine::{DEADLINE, again, property, systemctl, until, until_unit},
    package::install_again,
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

/// Who waits since nobody serves goes on waiting while the daemon is restarted, and while its package is
/// exchanged, and is answered by who serves next.
pub(crate) fn daemon_restarted_while_players_wait() -> Result<()> {
    let players = churn()?;
    systemctl(&["stop", &unit("v3")])?;
    until_waiting(CLIENTS)?;
    for _ in 0..ROUNDS {
        systemctl(&["restart", DAEMON])?;
        until_waiting(CLIENTS)?;
    }
    install_again()?;
    until_waiting(CLIENTS)?;
    systemctl(&["start", &unit("v3")])?;
    until_serving("v3")?;
    advance(&players, 50)?;
    // As where the server alone is restarted.
    tell("stopped, and the daemon restarted", players, 1)
}

/// `systemctl stop reuseportd` lets go of who waits, and nobody waits from then on.
pub(crate) fn daemon_stopped_while_a_player_waits() -> Result<()> {
    systemctl(&["stop", &unit("v3")])?;
    let mut player = TcpStream::connect(address())?;
    player.set_read_timeout(Some(DEADLINE))?;
    until_waiting(1)?;
    systemctl(&["stop", DAEMON])?;
    let heard = player.read(&mut [0]);
    ensure!(
        heard
            .as_ref()
            .is_err_and(|it| it.kind() == ErrorKind::ConnectionReset),
        "{heard:?}"
    );
    let refused = TcpStream::connect(address());
    ensure!(
        refused
            .as_ref()
            .is_err_and(|it| it.kind() == ErrorKind::ConnectionRefused),
        "{refused:?}"
    );
    systemctl(&["start", DAEMON])?;
    systemctl(&["start", &unit("v3")])?;
    until_serving("v3")
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
