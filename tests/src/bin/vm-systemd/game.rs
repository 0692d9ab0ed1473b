//! The game, as its players and its operator see it.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use reuseport_daemon::{
    api::wire::{ServiceStatus, Status},
    lab::{
        ledger::{Ledger, LossKind},
        load::{Load, LoadOptions, Protocol},
        wire::Tag,
    },
    sys::netns::Netns,
};

use super::machine::{DEADLINE, run, until};

pub(crate) const SERVICE: &str = "game";

/// How many clients connect at a time, each as often as it can.
pub(crate) const CLIENTS: u32 = 8;

/// How many sessions are held.
pub(crate) const SESSIONS: u32 = 200;

const PORT: u16 = 7777;

/// The unit of a version.
pub(crate) fn unit(version: &str) -> String {
    format!("game@{version}.service")
}

pub(crate) fn ctl(arguments: &[&str]) -> Result<String> {
    run("reuseportctl", arguments)
}

/// What the daemon says of the game.
pub(crate) fn status() -> Result<ServiceStatus> {
    let status: Status = serde_json::from_str(&ctl(&["--json", "status", SERVICE])?)?;
    let game = status.services.into_iter().next();
    game.context("the service")
}

/// Waits until a version serves, whoever has seen to it.
pub(crate) fn until_serving(version: &str) -> Result<()> {
    let unit = unit(version);
    until(&format!("{unit} serves"), || {
        // The daemon may be about to start.
        let Ok(status) = status() else {
            return Ok(false);
        };
        let mut instances = status.instances.iter();
        Ok(instances.any(|it| it.label == unit && it.state == "serving"))
    })
}

/// Waits until so many players wait while nobody serves.
pub(crate) fn until_waiting(players: u32) -> Result<()> {
    until(&format!("{players} wait"), || {
        // The daemon may be about to start.
        let Ok(status) = status() else {
            return Ok(false);
        };
        let parking = status.groups.iter().filter_map(|it| it.parking.as_ref());
        Ok(parking.map(|it| it.queued).sum::<u32>() == players)
    })
}

/// Players who come, make one move and go.
pub(crate) fn churn() -> Result<Load> {
    let load = start(CLIENTS, 0)?;
    advance(&load, 50)?;
    Ok(load)
}

/// Players who stay.
pub(crate) fn sessions() -> Result<Load> {
    let load = start(0, SESSIONS)?;
    advance(&load, 2 * u64::from(SESSIONS))?;
    Ok(load)
}

/// Waits until that many moves more have been answered.
pub(crate) fn advance(load: &Load, moves: u64) -> Result<()> {
    ensure!(load.advances_by(moves, DEADLINE), "{:?}", load.progress());
    Ok(())
}

/// Stops players of whom none may have been lost.
pub(crate) fn complete(load: Load) -> Result<Ledger> {
    let ledger = load.stop()?.connections;
    ledger.check_complete()?;
    Ok(ledger)
}

/// Stops players of whom so many may have been lost who had been let in by a server when it ended, or
/// were about to be. Nobody may have been refused.
pub(crate) fn complete_but_for(load: Load, most: u32) -> Result<Ledger> {
    let ledger = load.stop()?.connections;
    for kind in [LossKind::Refused, LossKind::TimedOut, LossKind::Wrong] {
        ensure!(ledger.lost_by(kind) == 0, "{} {kind}", ledger.lost_by(kind));
    }
    ensure!(ledger.lost() <= most.into(), "{} lost", ledger.lost());
    Ok(ledger)
}

pub(crate) fn label(version: &str) -> Result<Tag> {
    Ok(version.parse()?)
}

fn start(clients: u32, sessions: u32) -> Result<Load> {
    let options = LoadOptions {
        protocol: Protocol::Lines,
        sessions,
        session_pause: Duration::from_millis(250),
        // What is emulated takes its time, and is not to be kept from everything else.
        pause: Duration::from_millis(5),
        step_timeout: DEADLINE,
        ..LoadOptions::churn(vec![address()], clients)
    };
    Ok(Load::start(&Netns::current()?, options)?)
}

pub(crate) fn address() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, PORT).into()
}

/// A player whose game goes on: the server knows how many moves it has made.
pub(crate) struct Witness {
    server: BufReader<TcpStream>,
    version: String,
    moves: u32,
}

impl Witness {
    /// Begins a game with whoever serves, which must be that version.
    pub(crate) fn with(version: &str) -> Result<Self> {
        let server = TcpStream::connect(address())?;
        server.set_read_timeout(Some(DEADLINE))?;
        let mut witness = Self {
            server: BufReader::new(server),
            version: version.to_owned(),
            moves: 0,
        };
        witness.go_on()?;
        Ok(witness)
    }

    /// Makes a move, which must be answered by the same server, with the game as it was left.
    pub(crate) fn go_on(&mut self) -> Result<()> {
        self.moves += 1;
        let id = self.moves * 7;
        writeln!(self.server.get_mut(), "MOVE {id}")?;
        let mut answer = String::new();
        self.server.read_line(&mut answer)?;
        let expected = format!("{} {id} {}\n", self.version, self.moves);
        ensure!(answer == expected, "{answer:?}, not {expected:?}");
        Ok(())
    }
}
