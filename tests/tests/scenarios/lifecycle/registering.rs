//! Instances come: found in a process, or passed by it. Whoever does not come gets nothing.

use std::{
    io::Read,
    net::{SocketAddr, TcpStream},
    path::Path,
    process::Command,
};

use anyhow::{Context, Result, ensure};
use reuseport_daemon::{
    api::wire::{Changed, MigrationResult, Registered},
    lab::{process::Process, world::World},
};
use reuseport_tests::{
    control,
    ctl::{Ctl, last_line},
    held::instance_status,
    sockets::{Made, tcp},
    stage::{DEADLINE, PORT, SERVICE, Stage, any_v4, tag, v4},
    traces::Traces,
};
use serde_json::{Value, json};

use super::{check_selected, churn, complete};

/// A Python server registers its own listener and serves; then the service moves on to another.
pub(crate) fn python_passes_its_listener() -> Result<()> {
    const CONNECTIONS: u64 = 200;
    // As Python prints what the daemon answered.
    const REPLY: &str = "{\"parameters\": {\"changed\": true, \"label\": \"py\", \
                         \"generation\": 1, \"state\": \"serving\", \"listeners\": 1}}";
    let stage = Stage::set(World::loopback()?, &[any_v4()])?;
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/register.py");
    let mut command = Command::new("python3");
    command
        .arg(example)
        .args([SERVICE, &PORT.to_string(), "py"])
        .env("REUSEPORTD_SOCKET", stage.home().socket());
    let mut python = Process::start(stage.world.server(), command)?;
    python.wait_for(REPLY, DEADLINE)?;
    let instance = instance_status(&stage, SERVICE, "py")?.context("the instance")?;
    ensure!(instance.pid == python.pid() && instance.state == "serving");

    let target = stage.world.v4(PORT);
    for _ in 0..CONNECTIONS {
        let answer = stage.world.client().enter(|| whole_answer(target))??;
        ensure!(answer == "py\n", "{answer:?}");
    }
    check_selected(&stage, CONNECTIONS)?;

    let next = stage.server(&v4("v2"))?;
    stage.migrate_to(&next, "v2", || {})?;
    let ledger = complete(churn(&stage, 4)?)?;
    ensure!(ledger.by_label().keys().eq([&tag("v2")]));
    check_selected(&stage, CONNECTIONS + ledger.begun())
}

fn whole_answer(target: SocketAddr) -> Result<String> {
    let mut connection = TcpStream::connect(target)?;
    connection.set_read_timeout(Some(DEADLINE))?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    Ok(answer)
}

/// This process passes a listener: it is the instance then, and the daemon keeps no duplicate.
pub(crate) fn a_passed_listener_is_the_callers() -> Result<()> {
    let stage = Stage::set(World::loopback()?, &[any_v4()])?;
    let address: SocketAddr = any_v4().parse()?;
    let listener = tcp(stage.world.server(), address, Made::Listening)?;
    let register = || -> Result<Registered> {
        let call = control::call("Register", &json!({"service": SERVICE, "label": "t"}));
        let answer = control::ask(
            &stage.home().socket(),
            &call,
            &[std::os::fd::AsFd::as_fd(&listener)],
        )?;
        let answer = answer.context("an answer")?;
        Ok(serde_json::from_value(answer["parameters"].clone())?)
    };
    let expected = Registered {
        changed: true,
        label: "t".to_owned(),
        generation: 1,
        state: "serving".to_owned(),
        listeners: 1,
    };
    ensure!(register()? == expected);
    let before = Traces::of(&stage)?;
    let again = register()?;
    ensure!(
        again
            == Registered {
                changed: false,
                ..expected
            },
        "{again:?}"
    );
    Traces::of(&stage)?.same_as(&before)?;
    let instance = instance_status(&stage, SERVICE, "t")?.context("the instance")?;
    ensure!(instance.pid == std::process::id());

    let listeners = super::cookies(&stage, "t")?;
    drop(listener);
    // Somebody else's duplicate would keep it open.
    ensure!(super::listening_still(&stage, &listeners)? == 0);
    Ok(())
}

/// Neither an instance that stands by nor a socket that nobody has registered gets a connection.
pub(crate) fn who_does_not_serve_gets_nothing() -> Result<()> {
    let stage = Stage::set(World::loopback()?, &[any_v4()])?;
    let serving = stage.instance(&v4("v1"))?;
    let standby = stage.instance(&v4("v2"))?;
    let stranger = stage.server(&v4("v3"))?;
    let load = churn(&stage, 8)?;
    ensure!(load.advances_by(2000, DEADLINE), "a load that goes on");
    let ledger = complete(load)?;
    ensure!(ledger.by_label().keys().eq([&tag("v1")]));
    check_selected(&stage, ledger.begun())?;
    ensure!(standby.exit()?.accepted == 0 && stranger.exit()?.accepted == 0);
    ensure!(serving.exit()?.accepted == ledger.begun());
    Ok(())
}

/// Every verb can be repeated: what is done already is success, and changes nothing.
pub(crate) fn twice_is_once() -> Result<()> {
    let stage = Stage::set(World::loopback()?, &[any_v4()])?;
    let ctl = Ctl::of(stage.home())?;
    let v1 = stage.server(&v4("v1"))?;
    let v2 = stage.server(&v4("v2"))?;
    let twice = |line: &str| -> Result<Value> {
        let first = last_line(&ctl.done(&format!("--json {line}"))?)?;
        ensure!(first["changed"] == true, "{line}: {first}");
        let before = Traces::of(&stage)?;
        let second = last_line(&ctl.done(&format!("--json {line}"))?)?;
        ensure!(second["changed"] == false, "{line}: {second}");
        let unchanged = Traces::of(&stage)?.same_as(&before);
        unchanged.with_context(|| line.to_string())?;
        Ok(second)
    };
    for server in [&v1, &v2] {
        let label = if server.pid() == v1.pid() { "v1" } else { "v2" };
        let line = format!("register {SERVICE} --pid {} --label {label}", server.pid());
        let registered: Registered = serde_json::from_value(twice(&line)?)?;
        ensure!(registered.label == label, "{registered:?}");
    }
    let line = format!("--json migrate {SERVICE} --to v1");
    let result: MigrationResult = serde_json::from_value(last_line(&ctl.done(&line)?)?)?;
    ensure!(
        result.outcome == "unchanged" && result.switch_us == 0,
        "{result:?}"
    );
    twice(&format!("release {SERVICE} v2"))?;
    twice("service add more --listen 0.0.0.0:7001")?;
    twice("service remove more")?;
    let changed: Changed = serde_json::from_value(twice(&format!("service remove {SERVICE}"))?)?;
    ensure!(
        changed.message == format!("there is no service {SERVICE}"),
        "{changed:?}"
    );
    Ok(())
}

/// `--dry-run` checks everything and changes nothing.
pub(crate) fn a_rehearsal_changes_nothing() -> Result<()> {
    let stage = Stage::set(World::loopback()?, &[any_v4()])?;
    let ctl = Ctl::of(stage.home())?;
    let _v1 = stage.instance(&v4("v1"))?;
    let _v2 = stage.instance(&v4("v2"))?;
    let v3 = stage.server(&v4("v3"))?;
    let load = churn(&stage, 4)?;
    let before = Traces::of(&stage)?;
    for (target, to) in [
        ("--to v2".to_owned(), "v2"),
        (format!("--to-pid {} --label v3", v3.pid()), "v3"),
        (format!("--to-pid {}", v3.pid()), "g3"),
    ] {
        let line = format!("--json migrate {SERVICE} {target} --retire shutdown --dry-run");
        let result: MigrationResult = serde_json::from_value(last_line(&ctl.done(&line)?)?)?;
        ensure!(result.outcome == "dry_run" && result.to == to, "{result:?}");
        ensure!(result.from == ["v1"], "{result:?}");
        let unchanged = Traces::of(&stage)?.same_as(&before);
        unchanged.with_context(|| target.clone())?;
    }
    ensure!(load.advances_by(100, DEADLINE), "a load that goes on");
    let ledger = complete(load)?;
    ensure!(ledger.by_label().keys().eq([&tag("v1")]));
    check_selected(&stage, ledger.begun())
}

/// A slot that has had another listener counts anew.
pub(crate) fn a_slot_counts_anew() -> Result<()> {
    let stage = Stage::set(World::loopback()?, &[any_v4()])?;
    let selected = |label: &str| -> Result<(u16, u64)> {
        let instance = instance_status(&stage, SERVICE, label)?.context("the instance")?;
        let listener = instance.listeners.first().context("a listener")?;
        Ok((listener.slot, listener.selected))
    };
    let v1 = stage.instance(&v4("v1"))?;
    let first = complete(churn(&stage, 4)?)?.begun();
    let (slot, count) = selected("v1")?;
    ensure!(count == first, "{count} instead of {first}");
    let v2 = stage.server(&v4("v2"))?;
    stage.migrate_to(&v2, "v2", || {})?;
    v1.exit()?;
    reuseport_tests::wait::until("v1 is forgotten", || {
        Ok(instance_status(&stage, SERVICE, "v1")?.is_none())
    })?;
    let _v3 = stage.instance(&v4("v3"))?;
    ensure!(selected("v3")? == (slot, 0), "{:?}", selected("v3")?);
    check_selected(&stage, first)
}
