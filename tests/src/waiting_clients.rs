//! Clients that connect and stay, as a program: a process can have only so many descriptors.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use reuseport_daemon::{
    lab::load::{Load, LoadOptions, Protocol},
    sys::netns::Netns,
};
use socket2::SockRef;

use crate::wait::until_within;

/// The line that says that all have connected.
pub const READY: &str = "ready";

/// How long so many may take to connect.
const PATIENCE: Duration = Duration::from_secs(120);

/// Which clients, and where they go.
#[derive(Clone, Debug, Parser)]
#[command(name = "clients")]
pub struct Arguments {
    /// How many
    count: u32,
    /// Where they connect, in turn
    #[arg(required = true)]
    targets: Vec<SocketAddr>,
    /// Say nothing, where otherwise each asks an HTTP server once
    #[arg(long)]
    silent: bool,
}

/// Connects, says so, and waits for the end of the standard input. All connections are reset then.
///
/// # Errors
///
/// Where a client cannot connect, or has no answer.
pub fn run(arguments: &Arguments) -> Result<()> {
    if arguments.silent {
        let _clients = connect(arguments)?;
        wait_for_the_end()
    } else {
        let _load = open_sessions(arguments)?;
        wait_for_the_end()
    }
}

fn connect(arguments: &Arguments) -> Result<Vec<TcpStream>> {
    let count = usize::try_from(arguments.count)?;
    let targets = arguments.targets.iter().cycle().take(count);
    let clients = targets.map(|target| {
        let client = TcpStream::connect(target).with_context(|| target.to_string())?;
        SockRef::from(&client).set_linger(Some(Duration::ZERO))?;
        Ok(client)
    });
    clients.collect()
}

fn open_sessions(arguments: &Arguments) -> Result<Load> {
    let options = LoadOptions {
        protocol: Protocol::Http,
        sessions: arguments.count,
        // Each speaks when it is opened, and once when all are.
        session_pause: Duration::from_secs(3600),
        ..LoadOptions::churn(arguments.targets.clone(), 0)
    };
    let load = Load::start(&Netns::current()?, options)?;
    until_within(PATIENCE, "every session has spoken", || {
        let progress = load.progress();
        ensure!(progress.lost == 0, "{} sessions were lost", progress.lost);
        Ok(progress.answered == 2 * u64::from(arguments.count))
    })?;
    Ok(load)
}

fn wait_for_the_end() -> Result<()> {
    writeln!(io::stdout(), "{READY}")?;
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
