//! What not every kernel has: it works, or is refused by name, with exit status 4, and has changed
//! nothing.

use std::{io::ErrorKind, net::TcpStream};

use anyhow::{Context, Result, ensure};
use reuseport_daemon::{lab::world::World, sys::migrate_req};
use reuseport_tests::{
    ctl::Ctl,
    held::until_state,
    stage::{PORT, SERVICE, Stage, any_v4, v4},
    traces::Traces,
    wait::until,
};

/// Added once, a second time the same, and not another way.
pub(crate) fn parking() -> Result<()> {
    let stage = Stage::bare(World::loopback()?)?;
    let ctl = Ctl::of(stage.home())?;
    let before = Traces::of(&stage)?;
    let add = format!(
        "service add {SERVICE} --listen {} --park --park-timeout 1m",
        any_v4()
    );
    if !migrate_req::supported()? {
        lacking(&ctl, &add, "parking")?;
        return Traces::of(&stage)?.same_as(&before);
    }
    ctl.done(&add)?;
    ctl.done(&add)?;
    let ran = ctl.run(&format!("service add {SERVICE} --listen {}", any_v4()))?;
    ensure!(
        ran.code == 3 && ran.err.contains("another way to park"),
        "{ran:?}"
    );
    let told = ctl.done("status")?;
    ensure!(told.contains("0/65535 wait, 0s of 60s"), "{told}");
    ctl.done(&format!("service remove {SERVICE}"))?;
    until("nobody listens", || {
        let refused = stage
            .world
            .client()
            .enter(|| TcpStream::connect(stage.world.v4(PORT)))?;
        Ok(refused.is_err_and(|it| it.kind() == ErrorKind::ConnectionRefused))
    })?;
    before.come_back(|| Traces::of(&stage))
}

pub(crate) fn drain_by_kernel() -> Result<()> {
    let stage = Stage::set(World::loopback()?, &[any_v4()])?;
    let ctl = Ctl::of(stage.home())?;
    let _v1 = stage.instance(&v4("v1"))?;
    let _v2 = stage.instance(&v4("v2"))?;
    let before = Traces::of(&stage)?;
    let migrate = format!("migrate {SERVICE} --to v2 --drain kernel");
    if migrate_req::supported()? {
        ctl.done(&migrate)?;
        return until_state(&stage, SERVICE, "v2", "serving");
    }
    lacking(&ctl, &migrate, "kernel-drain")?;
    Traces::of(&stage)?.same_as(&before)
}

/// The switch without the feature, as later 5.10 kernels have it, is not taken for the feature.
pub(crate) fn examined() -> Result<()> {
    let stage = Stage::bare(World::loopback()?)?;
    let told = Ctl::of(stage.home())?.run("--json doctor")?.result()?;
    let findings = told["findings"].as_array().context("findings")?;
    let finding = findings
        .iter()
        .find(|it| it["subject"] == "listener migration");
    let finding = finding.context("a finding about listener migration")?;
    let message = finding["message"].as_str().context("a message")?;
    let (level, says) = match (
        migrate_req::supported()?,
        stage.world.server().enter(migrate_req::read)??,
    ) {
        (true, _) => ("ok", "and counts them"),
        (false, Some(_)) => ("note", "the switch does nothing"),
        (false, None) => ("note", "(Linux 5.14+)"),
    };
    ensure!(
        finding["level"] == level && message.contains(says),
        "{finding}"
    );
    Ok(())
}

fn lacking(ctl: &Ctl, command: &str, reason: &str) -> Result<()> {
    let ran = ctl.run(&format!("--json {command}"))?;
    ensure!(
        ran.code == 4 && ran.result()?["error"]["reason"] == reason,
        "{ran:?}"
    );
    Ok(())
}
