//! Services of the configuration that cannot be added when the daemon starts. It serves the others, says
//! what is lacking, once, and adds them when it is there.

use std::{net::IpAddr, os::unix::fs::symlink};

use anyhow::{Result, ensure};
use reuseport_daemon::{lab::world::World, sys::interface::Interface};
use reuseport_tests::{
    ctl::Ctl,
    stage::{PORT, SERVICE, Stage, any_v4, v4},
    wait::until,
};

/// What it says of one that it does not add.
const SAID: &str = "a service of the configuration is not added";

/// A namespace that is made after the daemon's start, by a unit of its own for example; beside it a user
/// who is not there, on account of whom the others are none the worse.
pub(crate) fn netns_comes_later() -> Result<()> {
    let places = tempfile::tempdir()?;
    let place = places.path().join("netns");
    let text = format!(
        "[service.{SERVICE}]\nlisten = [{:?}]\nnetns = \"{}\"\n\
         [service.nobodys]\nlisten = [\"0.0.0.0:1\"]\nuser = \"no such user\"\n\
         [service.there]\nlisten = [\"0.0.0.0:2\"]\n",
        any_v4(),
        place.display()
    );
    let stage = Stage::configured(World::loopback()?, &text)?;
    ensure!(names(&stage)? == ["there"], "{:?}", names(&stage)?);
    let netns = format!("/proc/{}/ns/net", stage.daemon().pid());
    symlink(netns, &place)?;
    until("it is there", || {
        Ok(names(&stage)?.contains(&SERVICE.to_owned()))
    })?;
    let server = stage.server(&v4("v1"))?;
    let registered = stage.daemon().register(SERVICE, server.pid(), "v1")?;
    ensure!(registered.state == "serving", "{registered:?}");
    said(&stage, &["netns: ", "there is no user"])
}

/// An address that the machine gets after the daemon's start, as from DHCP, and where connections are to
/// wait.
pub(crate) fn address_comes_later() -> Result<()> {
    const ADDRESS: [u8; 4] = [198, 18, 7, 7];
    const PREFIX: u8 = 32;
    let address = IpAddr::from(ADDRESS);
    let text = format!("[service.{SERVICE}]\nlisten = [\"{address}:{PORT}\"]\npark = true\n");
    let stage = Stage::configured(World::loopback()?, &text)?;
    ensure!(names(&stage)?.is_empty(), "{:?}", names(&stage)?);
    let device = stage.world.server().enter(|| Interface::named("lo"))??;
    device.add_address(address, PREFIX)?;
    until("it is there", || Ok(names(&stage)? == [SERVICE]))?;
    said(
        &stage,
        &["parking takes an address and a device that are there"],
    )
}

/// Connections are to wait where somebody has come to serve by then whom nobody could register. They go on
/// to that server, until it ends.
pub(crate) fn served_meanwhile() -> Result<()> {
    let places = tempfile::tempdir()?;
    let place = places.path().join("netns");
    let text = format!(
        "[service.{SERVICE}]\nlisten = [{:?}]\npark = true\nnetns = \"{}\"\n",
        any_v4(),
        place.display()
    );
    let stage = Stage::configured(World::loopback()?, &text)?;
    let server = stage.server(&v4("v1"))?;
    symlink(format!("/proc/{}/ns/net", stage.daemon().pid()), &place)?;
    let reasons = ["netns: ", "somebody listens at"];
    until("it says who listens", || Ok(said(&stage, &reasons).is_ok()))?;
    ensure!(names(&stage)?.is_empty(), "{:?}", names(&stage)?);
    drop(server);
    until("it is there", || Ok(names(&stage)? == [SERVICE]))?;
    said(&stage, &reasons)
}

/// One that is there already, and otherwise: it goes on as it is until it is removed, and the next daemon has
/// it as the configuration does.
pub(crate) fn edited() -> Result<()> {
    let text = format!("[service.{SERVICE}]\nlisten = [{:?}]\n", any_v4());
    let mut stage = Stage::configured(World::loopback()?, &text)?;
    let ctl = Ctl::of(stage.home())?;
    ctl.done(&format!("service remove {SERVICE}"))?;
    ctl.done(&format!(
        "service add {SERVICE} --listen {} --slots 9",
        any_v4()
    ))?;
    stage.restart_daemon()?;
    let slots = stage.status()?.groups[0].slots;
    ensure!(slots == 9, "{slots}");
    said(&stage, &["another number of slots"])?;
    ctl.done(&format!("service remove {SERVICE}"))?;
    stage.restart_daemon()?;
    let slots = stage.status()?.groups[0].slots;
    ensure!(slots != 9, "{slots}");
    said(&stage, &[])
}

fn names(stage: &Stage) -> Result<Vec<String>> {
    let services = stage.daemon().status()?;
    Ok(services.into_iter().map(|it| it.name).collect())
}

/// Each of these was said once, and nothing else.
fn said(stage: &Stage, reasons: &[&str]) -> Result<()> {
    let log = stage.daemon().log();
    let lines: Vec<_> = log.lines().filter(|it| it.contains(SAID)).collect();
    ensure!(lines.len() == reasons.len(), "{lines:?}");
    for reason in reasons {
        ensure!(lines.iter().any(|it| it.contains(reason)), "{lines:?}");
    }
    Ok(())
}
