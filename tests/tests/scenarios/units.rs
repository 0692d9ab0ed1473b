//! Units of systemd as instances, in control groups like its own.

use std::{
    io::{self, Write as _},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use reuseport_daemon::{
    api::wire::{AddService, Changed},
    lab::{
        ledger::LossKind,
        load::{Load, LoadOptions},
        server::Stop,
        world::World,
    },
};
use reuseport_tests::{
    ctl::{Ctl, Ran},
    held::{PATIENCE, instance_status, until_state},
    people::{NOBODY, server_as},
    stage::{DEADLINE, PORT, SERVICE, Stage, any_v4, v4},
    traces::Traces,
    unit::Slice,
    wait::until,
};
use rustix::process::Signal;
use serde_json::Value;

const V1: &str = "game@v1.service";
const V2: &str = "game@v2.service";

/// Registered and moved to by their units' names, under a load of which nothing is lost.
pub(crate) fn by_name() -> Result<()> {
    let stage = Stage::set(World::loopback()?, &[any_v4()])?;
    let slice = Slice::new()?;
    let (first, second) = (slice.unit(V1)?, slice.unit(V2)?);
    let ctl = Ctl::of(stage.home())?;
    let mut v1 = stage.server(&v4("v1"))?;
    first.take(&v1)?;
    // A name without a kind is a service's.
    ctl.done(&format!("register {SERVICE} --unit game@v1"))?;
    let registered = instance_status(&stage, SERVICE, V1)?.context("the instance")?;
    ensure!(registered.pid == v1.pid() && registered.state == "serving");

    let load = churn(&stage)?;
    let v2 = stage.server(&v4("v2"))?;
    let _inside = second.take_inside(&v2)?;
    let told = ctl.done(&format!("migrate {SERVICE} --to-unit {V2}"))?;
    let moved = load.mark();
    ensure!(told.contains(&format!("from {V1} to {V2}")), "{told}");
    ensure!(load.advances_by(200, DEADLINE), "a load that goes on");
    let ledger = load.stop()?.connections;
    ledger.check_complete()?;
    ensure!(ledger.begun_since(moved).keys().eq([&"v2".parse()?]));

    // What is done already is success, also for an instance that was called otherwise.
    ctl.done(&format!("migrate {SERVICE} --to-unit {V2}"))?;
    let again = ctl.done(&format!("--json register {SERVICE} --unit {V1}"))?;
    let again: Value = serde_json::from_str(&again)?;
    ensure!(again["changed"] == false, "{again}");

    // A process that takes over from another one within its unit, which may have sessions still, is
    // called otherwise.
    v1.stop_listening(Stop::Close)?;
    let successor = stage.server(&v4("v1"))?;
    first.take(&successor)?;
    let told = ctl.done(&format!("register {SERVICE} --unit {V1}"))?;
    ensure!(told.contains("g3"), "{told}");
    drop((v1, v2, successor));
    Ok(())
}

/// What is not to be had is said, and has changed nothing.
pub(crate) fn refused() -> Result<()> {
    let stage = Stage::set(World::loopback()?, &[any_v4()])?;
    stage.daemon().call::<_, Changed>(
        "AddService",
        &AddService {
            name: "nobodys".to_owned(),
            listen: vec!["0.0.0.0:7001".to_owned()],
            user: Some(NOBODY.to_string()),
            ..AddService::default()
        },
    )?;
    let slice = Slice::new()?;
    let (one, several, mixed) = (
        slice.unit(V1)?,
        slice.unit(V2)?,
        slice.unit("mixed.service")?,
    );
    let _empty = slice.unit("empty.service")?;
    let elsewhere = stage.server(&reuseport_tests::stage::listening("x", &["0.0.0.0:7002"]))?;
    one.take(&elsewhere)?;
    let (a, b) = (stage.server(&v4("a"))?, stage.server(&v4("b"))?);
    several.take(&a)?;
    several.take(&b)?;
    let roots = stage.server(&v4("roots"))?;
    mixed.take(&roots)?;

    let root = Ctl::of(stage.home())?;
    let nobody = root.run_by(NOBODY);
    let before = Traces::of(&stage)?;
    for (ctl, line, code, reason) in [
        (&root, "register game --unit none", 3, "unknown-unit"),
        (&root, "register game --unit empty", 3, "unknown-unit"),
        (
            &root,
            "register game --unit game@v1",
            3,
            "unit-not-listening",
        ),
        (&root, "register game --unit game@v2", 3, "unit-ambiguous"),
        (&root, "migrate game --to-unit none", 3, "unknown-unit"),
        (&root, "migrate game --to-unit game@v2", 3, "unit-ambiguous"),
        // Not looked into for one who is not its owner.
        (&nobody, "register nobodys --unit mixed", 7, "not-permitted"),
    ] {
        let ran = ctl.run(&format!("--json {line}"))?;
        ensure!(ran.code == code, "{line}: {ran:?}");
        ensure!(reason_of(&ran)? == reason, "{line}: {ran:?}");
    }
    for line in [
        "register game --unit a/b",
        "register game --unit a --pid 1",
        "register game",
        "migrate game --to v1 --to-unit a",
    ] {
        let ran = root.run(line)?;
        ensure!(ran.code == 2, "{line}: {ran:?}");
    }
    let after = Traces::of(&stage)?;
    ensure!(after.status == before.status, "{before:?} became {after:?}");
    drop((elsewhere, a, b, roots));

    // Who owns the process may, also where another one's is in the unit.
    let theirs = reuseport_tests::stage::listening("theirs", &["0.0.0.0:7001"]);
    let theirs = server_as(NOBODY, stage.world.server(), &theirs)?;
    mixed.take(&theirs)?;
    nobody.done("register nobodys --unit mixed")?;
    Ok(())
}

/// Units of a pattern come by themselves: from a group that is made, one that is filled again, and one
/// whose server takes its time to listen. Who waits meanwhile is answered.
pub(crate) fn by_themselves() -> Result<()> {
    let mut stage = Stage::bare(World::loopback()?)?;
    stage.daemon().call::<_, Changed>(
        "AddService",
        &AddService {
            name: SERVICE.to_owned(),
            listen: vec![any_v4()],
            park: true,
            instances: Some("game@*".to_owned()),
            ..AddService::default()
        },
    )?;
    let slice = Slice::new()?;
    let (bystander, first) = (slice.unit("other.service")?, slice.unit(V1)?);
    let stranger = stage.server(&v4("stranger"))?;
    bystander.take(&stranger)?;
    let load = Load::start(
        stage.world.client(),
        LoadOptions {
            step_timeout: PATIENCE,
            ..LoadOptions::churn(vec![stage.world.v4(PORT)], 8)
        },
    )?;

    let v1 = stage.server(&v4("v1"))?;
    first.take(&v1)?;
    until_state(&stage, SERVICE, V1, "serving")?;
    ensure!(load.advances_by(100, DEADLINE), "who waited is answered");

    // The group stays: it is emptied, and filled again.
    v1.signal(Signal::KILL)?;
    until("nobody serves", || {
        Ok(instance_status(&stage, SERVICE, V1)?.is_none_or(|it| it.state != "serving"))
    })?;
    drop(v1);
    let mut v1 = stage.server(&v4("v1"))?;
    v1.stop_listening(Stop::Close)?;
    first.take(&v1)?;
    // It is in its unit, and listens later.
    let began = Instant::now();
    v1.listen_more()?;
    until_state(&stage, SERVICE, V1, "serving")?;
    let noticed = began.elapsed();
    let _ = writeln!(io::stderr(), "serves {noticed:?} after it listens");
    ensure!(noticed < Duration::from_secs(5), "{noticed:?}");
    // One that opens its listeners one after the other is seen whole.
    v1.listen_more()?;
    until("both of its listeners have a slot", || {
        let instance = instance_status(&stage, SERVICE, V1)?;
        Ok(instance.is_some_and(|it| it.listeners.len() == 2))
    })?;
    ensure!(load.advances_by(100, DEADLINE), "a load that goes on");

    // While no daemon was there.
    let second = slice.unit(V2)?;
    let v2 = stage.server(&v4("v2"))?;
    stage.without_daemon(|| second.take(&v2))?;
    until_state(&stage, SERVICE, V2, "standby")?;
    let pattern = stage.status()?.units;
    ensure!(pattern.as_deref() == Some("game@*.service"), "{pattern:?}");
    Ctl::of(stage.home())?.done(&format!("migrate {SERVICE} --to-unit {V2}"))?;
    let moved = load.mark();
    ensure!(load.advances_by(100, DEADLINE), "a load that goes on");
    let ledger = load.stop()?.connections;
    // What the killed server had accepted, and who waited when the daemon stopped.
    let reset = ledger.lost_by(LossKind::Reset) + ledger.lost_by(LossKind::Eof);
    ensure!(
        ledger.lost() == reset && reset <= 16,
        "{} lost",
        ledger.lost()
    );
    ensure!(ledger.begun_since(moved).keys().eq([&"v2".parse()?]));
    ensure!(!ledger.by_label().contains_key(&"stranger".parse()?));
    ensure!(
        stage.status()?.instances.len() == 2,
        "{:?}",
        stage.status()?
    );
    drop((v1, v2, stranger));
    Ok(())
}

fn churn(stage: &Stage) -> Result<Load> {
    let options = LoadOptions::churn(vec![stage.world.v4(PORT)], 8);
    let load = Load::start(stage.world.client(), options)?;
    ensure!(load.advances_by(50, DEADLINE), "a load under way");
    Ok(load)
}

fn reason_of(ran: &Ran) -> Result<String> {
    let answer: Value = serde_json::from_str(ran.out.trim())?;
    let reason = answer["error"]["reason"].as_str();
    Ok(reason.context("a reason")?.to_owned())
}
