//! Listeners and services by the hundred, on a stage.

use std::ops::Range;

use anyhow::{Result, ensure};
use reuseport_common::FIRST_SLOT;
use reuseport_daemon::{
    api::wire::{AddService, Changed},
    lab::{fixture::Fixture, server::Options, world::World},
};

use crate::stage::{SERVICE, Stage, any_v4, listening};

/// The ports of services begin here; clients have those above 10,000.
const FIRST_PORT: u16 = 8000;

/// How many services one server has listeners of. Each is an instance of all of them.
pub(super) const SERVED_TOGETHER: u16 = 20;

/// A server with so many listeners at the usual address.
pub(super) fn listeners(label: &str, count: u16) -> Options {
    let address = any_v4();
    listening(label, &vec![&*address; count.into()])
}

/// A stage whose service has room for two instances of so many listeners.
pub(super) fn stage_of_listeners(world: World, count: u16) -> Result<Stage> {
    let stage = Stage::bare(world)?;
    let parameters = AddService {
        name: SERVICE.to_owned(),
        listen: vec![any_v4()],
        slots: Some(FIRST_SLOT + 2 * u32::from(count)),
        ..AddService::default()
    };
    let _: Changed = stage.daemon().call("AddService", &parameters)?;
    Ok(stage)
}

/// Servers for services of these numbers.
pub(super) fn servers(stage: &Stage, numbers: Range<u16>) -> Result<Vec<(u16, Fixture)>> {
    let mut servers = Vec::new();
    for first in numbers.clone().step_by(SERVED_TOGETHER.into()) {
        let last = (first + SERVED_TOGETHER).min(numbers.end);
        let addresses: Vec<String> = (first..last).map(address).collect();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        let server = stage.server(&listening("v1", &addresses))?;
        servers.push((first, server));
    }
    Ok(servers)
}

/// Adds the service of that number, with one instance.
pub(super) fn add_service(stage: &Stage, number: u16, server: &Fixture) -> Result<()> {
    let name = format!("service-{number}");
    stage.daemon().add_service(&name, &[address(number)])?;
    let registered = stage.daemon().register(&name, server.pid(), "v1")?;
    ensure!(registered.listeners == 1, "{registered:?}");
    Ok(())
}

fn address(number: u16) -> String {
    format!("0.0.0.0:{}", FIRST_PORT + number)
}
