//! The daemon's own comings and goings, and what it leaves.

use std::{
    fs,
    process::{Command, Stdio},
};

use anyhow::{Result, ensure};
use reuseport_daemon::lab::{server::Stop, world::World};
use reuseport_tests::{
    ctl::Ctl,
    held::until_state,
    outcomes::woken,
    stage::{DEADLINE, SERVICE, Stage, any_v4, program, tag, v4},
    traces::Traces,
    wait::until,
};

use super::{check_selected, churn, complete};

/// Stopped and started again: clients see nothing, and the new daemon knows what the old one knew.
pub(crate) fn restart() -> Result<()> {
    let mut stage = Stage::set(World::loopback()?, &[any_v4()])?;
    stage
        .daemon()
        .add_service("other", &["[::]:7001,v6only".to_owned()])?;
    let _v1 = stage.instance(&v4("v1"))?;
    let v2 = stage.instance(&v4("v2"))?;
    let v3 = stage.instance(&v4("v3"))?;
    stage.migrate_to(&v2, "v2", || {})?;
    let load = churn(&stage, 8)?;
    let before = Traces::of(&stage)?;
    for _ in 0..3 {
        stage.restart_daemon()?;
        let after = Traces::of(&stage)?;
        ensure!(after.status == before.status, "{before:?} became {after:?}");
        ensure!(after.pins == before.pins, "{before:?} became {after:?}");
        ensure!(load.advances_by(200, DEADLINE), "a load that goes on");
    }
    let mark = load.mark();
    let result = stage.migrate_to(&v3, "v3", || {})?;
    ensure!(result.from == ["v2"], "{result:?}");
    let moved = load.mark();
    ensure!(load.advances_by(100, DEADLINE), "a load that goes on");
    let ledger = complete(load)?;
    ensure!(
        ledger.check_within(
            reuseport_daemon::lab::ledger::Mark::default()..mark,
            tag("v2")
        )? > 0
    );
    ensure!(ledger.begun_since(moved).keys().eq([&tag("v3")]));
    check_selected(&stage, ledger.begun())
}

/// While no daemon is there, the data path goes on, and the command says what is missing.
pub(crate) fn absence() -> Result<()> {
    let mut stage = Stage::set(World::loopback()?, &[any_v4()])?;
    let _v1 = stage.instance(&v4("v1"))?;
    let _v2 = stage.instance(&v4("v2"))?;
    let load = churn(&stage, 4)?;
    let ctl = Ctl::of(stage.home())?;
    stage.without_daemon(|| {
        ensure!(load.advances_by(500, DEADLINE), "a load that goes on");
        let ran = ctl.run("status")?;
        ensure!(ran.code == 6 && ran.err.starts_with("error: "), "{ran:?}");
        Ok(())
    })?;
    let ledger = complete(load)?;
    ensure!(ledger.by_label().keys().eq([&tag("v1")]));
    check_selected(&stage, ledger.begun())
}

/// A second one on the same socket, or on the same bpffs, says so and leaves; the first goes on.
pub(crate) fn second() -> Result<()> {
    let stage = Stage::set(World::loopback()?, &[any_v4()])?;
    let _v1 = stage.instance(&v4("v1"))?;
    let load = churn(&stage, 4)?;
    let before = Traces::of(&stage)?;
    let socket = stage.home().socket();
    let elsewhere = tempfile::tempdir()?;
    let taken = [
        (
            socket.clone(),
            format!("another daemon answers on {}", socket.display()),
        ),
        (
            elsewhere.path().join("control"),
            format!(
                "another reuseportd uses {}",
                stage.home().bpffs().join("reuseportd").display()
            ),
        ),
    ];
    for (socket, expected) in taken {
        let output = stage.world.server().enter(|| -> Result<_> {
            Ok(Command::new(program("reuseportd")?)
                .arg("--socket")
                .arg(&socket)
                .arg("--bpffs")
                .arg(stage.home().bpffs())
                .stdin(Stdio::null())
                .output()?)
        })??;
        let said = String::from_utf8(output.stderr)?;
        ensure!(
            output.status.code() == Some(1),
            "{:?}: {said}",
            output.status
        );
        ensure!(said.contains(&expected), "{said}");
    }
    Traces::of(&stage)?.same_as(&before)?;
    let v2 = stage.server(&v4("v2"))?;
    stage.migrate_to(&v2, "v2", || {})?;
    check_selected(&stage, complete(load)?.begun())
}

/// The process that serves ends, and the one that stands by takes over.
pub(crate) fn heir() -> Result<()> {
    let stage = Stage::set(World::loopback()?, &[any_v4()])?;
    let v1 = stage.instance(&v4("v1"))?;
    let _v2 = stage.instance(&v4("v2"))?;
    let load = churn(&stage, 4)?;
    v1.exit()?;
    until_state(&stage, SERVICE, "v2", "serving")?;
    let mark = load.mark();
    ensure!(load.advances_by(200, DEADLINE), "a load that goes on");
    let ledger = complete(load)?;
    ensure!(ledger.begun_since(mark).keys().eq([&tag("v2")]));
    // Between the end of the one and the steering to the other, the kernel's hash finds the other. What
    // was moved may take the daemon's own connections to wake it, which it says after it has made them.
    until("every run of the program is accounted for", || {
        let new = stage.status()?.groups[0].outcomes.new.clone();
        ensure!(new.probed == 0 && new.parked == 0, "{new:?}");
        Ok(new.selected + new.kernel == ledger.begun() + woken(&stage)?)
    })
}

/// One that was moved away from, and has closed its listeners since, takes nothing over: the next one
/// that registers serves.
pub(crate) fn closed_heir() -> Result<()> {
    let stage = Stage::set(World::loopback()?, &[any_v4()])?;
    let mut v1 = stage.instance(&v4("v1"))?;
    let v2 = stage.instance(&v4("v2"))?;
    stage.migrate_to(&v2, "v2", || {})?;
    v1.stop_listening(Stop::Close)?;
    v2.exit()?;
    until_state(&stage, SERVICE, "v2", "gone")?;
    until_state(&stage, SERVICE, "v1", "retired")?;
    let v3 = stage.server(&v4("v3"))?;
    let registered = stage.daemon().register(SERVICE, v3.pid(), "v3")?;
    ensure!(registered.state == "serving", "{registered:?}");
    Ok(())
}

/// Removed, a service is the kernel's to spread again, and nothing is left of it. Added again, it is
/// steered again.
pub(crate) fn removal() -> Result<()> {
    let stage = Stage::set(World::loopback()?, &[any_v4()])?;
    let ctl = Ctl::of(stage.home())?;
    let v1 = stage.instance(&v4("v1"))?;
    let v2 = stage.instance(&v4("v2"))?;
    let load = churn(&stage, 8)?;
    let descriptors = || Ok(fs::read_dir(format!("/proc/{}/fd", stage.daemon().pid()))?.count());
    let before: Result<usize> = descriptors();
    ctl.done(&format!("service remove {SERVICE}"))?;
    let removed = load.mark();
    ensure!(load.advances_by(500, DEADLINE), "a load that goes on");
    let pinned = reuseport_tests::traces::tree(&stage.home().bpffs().join("reuseportd"))?;
    ensure!(pinned.is_empty(), "{pinned:?}");
    until("its descriptors are closed", || {
        let after: Result<usize> = descriptors();
        Ok(after? < *before.as_ref().unwrap_or(&0))
    })?;
    ctl.done(&format!("service remove {SERVICE}"))?;

    let added = load.mark();
    stage.daemon().add_service(SERVICE, &[any_v4()])?;
    stage.daemon().register(SERVICE, v2.pid(), "v2")?;
    stage.daemon().register(SERVICE, v1.pid(), "v1")?;
    let steered = load.mark();
    ensure!(load.advances_by(200, DEADLINE), "a load that goes on");
    let ledger = complete(load)?;
    let spread = ledger.within(removed..added);
    let fair = |label: &str| spread.get(&tag(label)).is_some_and(|count| *count >= 100);
    ensure!(fair("v1") && fair("v2"), "{spread:?}");
    ensure!(ledger.begun_since(steered).keys().eq([&tag("v2")]));
    Ok(())
}
