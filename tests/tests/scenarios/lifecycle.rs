//! A service from its first instance to its removal.

pub(crate) mod daemon;
pub(crate) mod drains;
pub(crate) mod registering;
pub(crate) mod retire;
pub(crate) mod shapes;

use anyhow::{Context, Result, ensure};
use reuseport_daemon::{
    domain::SocketCookie,
    lab::{
        ledger::Ledger,
        load::{Load, LoadOptions},
    },
    sys::sock_diag::SockDiag,
};
use reuseport_tests::{
    held::{PATIENCE, instance_status},
    outcomes::all_selected,
    stage::{DEADLINE, PORT, SERVICE, Stage},
};

/// Clients of the service, each as fast as it can.
fn churn(stage: &Stage, clients: u32) -> Result<Load> {
    let load = begin(stage, clients)?;
    ensure!(load.advances_by(50, DEADLINE), "a load under way");
    Ok(load)
}

/// The same, whether or not anybody answers them yet; they wait for as long as it takes.
fn begin(stage: &Stage, clients: u32) -> Result<Load> {
    let options = LoadOptions {
        step_timeout: PATIENCE,
        ..LoadOptions::churn(vec![stage.world.v4(PORT)], clients)
    };
    Ok(Load::start(stage.world.client(), options)?)
}

/// Stops a load of which every request must have been answered.
fn complete(load: Load) -> Result<Ledger> {
    let ledger = load.stop()?.connections;
    ledger.check_complete()?;
    Ok(ledger)
}

/// Checks that the steering program ran that often, and always found the listener that its table
/// names.
fn check_selected(stage: &Stage, connections: u64) -> Result<()> {
    let outcomes = &stage.status()?.groups[0].outcomes;
    all_selected(outcomes, connections)
}

/// The cookies of an instance's listeners.
fn cookies(stage: &Stage, label: &str) -> Result<Vec<SocketCookie>> {
    let instance = instance_status(stage, SERVICE, label)?;
    let listeners = instance.context("the instance")?.listeners;
    let cookies: Vec<_> = listeners.iter().map(|it| SocketCookie(it.cookie)).collect();
    ensure!(!cookies.is_empty(), "{label} has no listener");
    Ok(cookies)
}

/// How many of these sockets the kernel still listens on.
fn listening_still(stage: &Stage, cookies: &[SocketCookie]) -> Result<usize> {
    let diag = stage.world.server().enter(SockDiag::open)??;
    let rows = diag.listeners(None)?;
    Ok(rows
        .iter()
        .filter(|row| cookies.contains(&row.cookie))
        .count())
}
