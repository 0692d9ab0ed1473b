//! Runs of the steering program that belong to no new connection.
//!
//! When a connection closes, the kernel puts its `TIME_WAIT` in the place of its socket, and a lookup
//! on another processor in that moment can miss both. The client's last acknowledgement then goes on
//! to the listeners: the program runs once more, and whichever listener it chooses answers with a
//! reset. Nothing is lost, as the client has had its answer and the end of the stream
//! (`inet_twsk_hashdance_schedule`,
//! <https://elixir.bootlin.com/linux/v6.18/source/net/ipv4/inet_timewait_sock.c>).
//!
//! Every client of the lab ends its connection with one reset. The resets beyond those are the
//! kernel's own count of such strays: one in some hundred thousand connections, on a busy machine.

use std::fs;

use anyhow::{Context, Result, ensure};
use reuseport_daemon::{api::wire::Outcomes, sys::netns::Netns};

use crate::stage::Stage;

/// How many resets a namespace has sent beyond one for each of `connections`.
///
/// # Errors
///
/// Where the kernel's counters cannot be read.
pub fn strays(netns: &Netns, connections: u64) -> Result<u64> {
    let snmp = netns.enter(|| fs::read_to_string("/proc/thread-self/net/snmp"))??;
    let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = lines.next().zip(lines.next()).context("TCP's counters")?;
    let mut pairs = names.split_whitespace().zip(values.split_whitespace());
    let (_, resets) = pairs
        .find(|(name, _)| *name == "OutRsts")
        .context("OutRsts")?;
    Ok(resets.parse::<u64>()?.saturating_sub(connections))
}

/// Checks that a group's program ran once for each of its connections, and always found the listener
/// that its table names. `all` is how many connections there were in the stage's world.
///
/// # Errors
///
/// Where it did not.
pub fn check_selected(
    stage: &Stage,
    outcomes: &Outcomes,
    connections: u64,
    all: u64,
) -> Result<()> {
    let selected = outcomes.new.selected;
    let most = connections + strays(stage.world.server(), all)?;
    let mut only_selected = Outcomes::default();
    only_selected.new.selected = selected;
    ensure!(
        *outcomes == only_selected && (connections..=most).contains(&selected),
        "{outcomes:?} instead of {connections} to {most} selected"
    );
    Ok(())
}
