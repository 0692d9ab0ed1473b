//! What becomes of the old listeners.

use anyhow::{Result, ensure};
use reuseport_daemon::{
    api::wire::Migrate,
    lab::{fixture::Fixture, load::Load, world::World},
};
use reuseport_tests::{
    ctl::Ctl,
    held::instance_status,
    stage::{DEADLINE, SERVICE, Stage, any_v4, tag, v4},
    wait::until,
};

use super::{check_selected, churn, complete, cookies, listening_still};

/// They stay, out of reach, until their owner closes them.
pub(crate) fn keep() -> Result<()> {
    retire("keep", |stage, old, load| {
        let listeners = cookies(stage, "v1")?;
        ensure!(listening_still(stage, &listeners)? == listeners.len());
        // Out of reach: its count stands still while the clients go on.
        let counted = || -> Result<Option<u64>> {
            let instance = instance_status(stage, SERVICE, "v1")?;
            Ok(instance.map(|it| it.listeners.iter().map(|it| it.selected).sum()))
        };
        let before = counted()?;
        ensure!(load.advances_by(200, DEADLINE), "a load that goes on");
        ensure!(counted()? == before);
        let counts = old.exit()?;
        ensure!(counts.listeners_lost == 0, "{counts:?}");
        Ok(())
    })
}

/// They are closed for whoever holds them, and their owner lives on.
pub(crate) fn shutdown() -> Result<()> {
    retire("shutdown", |stage, old, load| {
        let instance = instance_status(stage, SERVICE, "v1")?;
        let instance = instance.expect("its process lives");
        ensure!(instance.state == "retired" && instance.listeners.is_empty());
        let again = Ctl::of(stage.home())?.run(&format!("--json migrate {SERVICE} --to v1"))?;
        ensure!(again.code == 3 && again.result()?["error"]["reason"] == "no-listener");
        ensure!(load.advances_by(100, DEADLINE), "a load that goes on");
        let counts = old.exit()?;
        ensure!(counts.listeners_lost == 2, "{counts:?}");
        Ok(())
    })
}

/// Their owner is told to end, and does.
pub(crate) fn signal() -> Result<()> {
    retire("signal:TERM", |stage, old, load| {
        old.exit()?;
        until("v1 is forgotten", || {
            Ok(instance_status(stage, SERVICE, "v1")?.is_none())
        })?;
        ensure!(load.advances_by(100, DEADLINE), "a load that goes on");
        Ok(())
    })
}

/// Migrates from `v1` to `v2` with that retirement, and lets `check` look at what is left. In the end
/// the old listeners are gone, and no connection is.
fn retire(how: &str, check: impl FnOnce(&Stage, Fixture, &Load) -> Result<()>) -> Result<()> {
    let stage = Stage::set(World::loopback()?, &[any_v4()])?;
    let mut options = v4("v1");
    options.workers = 2;
    let old = stage.instance(&options)?;
    let _new = stage.instance(&v4("v2"))?;
    let listeners = cookies(&stage, "v1")?;
    let load = churn(&stage, 8)?;
    let parameters = Migrate {
        service: SERVICE.to_owned(),
        to: Some("v2".to_owned()),
        retire: Some(how.to_owned()),
        ..Migrate::default()
    };
    let mut switched = None;
    let result = stage.migrate(&parameters, || switched = Some(load.mark()))?;
    ensure!(
        result.left_behind == 0 && result.from == ["v1"],
        "{result:?}"
    );
    if how != "keep" {
        until("the listeners are gone", || {
            Ok(listening_still(&stage, &listeners)? == 0)
        })?;
    }
    check(&stage, old, &load)?;
    ensure!(listening_still(&stage, &listeners)? == 0);
    let switched = switched.expect("reported");
    let ledger = complete(load)?;
    ensure!(ledger.begun_since(switched).keys().eq([&tag("v2")]));
    check_selected(&stage, ledger.begun())
}
