//! Listeners that are gone though their process lives.

use std::os::fd::AsFd;

use anyhow::{Context, Result, ensure};
use reuseport_common::PROBES;
use reuseport_daemon::{
    lab::{fixture::Fixture, server::Stop, world::World},
    sys::{
        process::Process,
        sock_diag::{ListenerRow, SockDiag},
        socket,
    },
};
use reuseport_tests::{
    ctl::Ctl,
    held::{Held, Stopped, instance_status},
    sockets::connected,
    stage::{PORT, SERVICE, Stage, any_v4, v4},
};

/// An instance that has closed its listeners and lives on gets nothing, and whoever serves is not
/// retired for it.
pub(crate) fn none_left_to_migrate_to() -> Result<()> {
    let stage = Stage::set(World::loopback()?, &[any_v4()])?;
    let ctl = Ctl::of(stage.home())?;
    let _old = stage.instance(&v4("v1"))?;
    let mut next = stage.instance(&v4("v2"))?;
    next.stop_listening(Stop::Close)?;
    for arguments in ["--retire shutdown", "--dry-run"] {
        let ran = ctl.run(&format!("--json migrate {SERVICE} --to v2 {arguments}"))?;
        let error = &ran.result()?["error"];
        ensure!(ran.code == 3 && error["reason"] == "no-listener", "{ran:?}");
    }
    let old = instance_status(&stage, SERVICE, "v1")?.context("v1")?;
    ensure!(old.state == "serving", "{old:?}");
    connected(stage.world.client(), stage.world.v4(PORT))?;
    Ok(())
}

/// Some of the old listeners are shut down already, as where a daemon was killed in the middle of
/// it: the others are, all the same.
pub(crate) fn some_shut_down_before() -> Result<()> {
    let stage = Stage::set(World::loopback()?, &[any_v4()])?;
    let ctl = Ctl::of(stage.home())?;
    let mut options = v4("v1");
    options.workers = 4;
    let old = stage.instance(&options)?;
    let _next = stage.instance(&v4("v2"))?;
    ensure!(listening(&stage)?.len() == 5);

    // It stands, so that it does not close what it could no longer accept on.
    let stands = Stopped::stop(&old)?;
    shut_down(&stage, &old, "v1", 2)?;
    ensure!(listening(&stage)?.len() == 3);

    ctl.done(&format!("migrate {SERVICE} --to v2 --retire shutdown"))?;
    let left = listening(&stage)?;
    ensure!(left.len() == 1, "{left:?}");
    connected(stage.world.client(), stage.world.v4(PORT))?;
    stands.go_on()
}

/// The new instance loses listeners during the drain. As long as every connection finds one that is left
/// the drain goes on; when one might not, the old instance serves again.
pub(crate) fn most_new_ones_close() -> Result<()> {
    let stage = Stage::set(World::loopback()?, &[any_v4()])?;
    let old = stage.instance(&v4("v1"))?;
    let mut options = v4("v2");
    options.workers = 8;
    let new = stage.instance(&options)?;
    let stands = Stopped::stop(&old)?;
    let waiting = connected(stage.world.client(), stage.world.v4(PORT))?;
    let migration = Held::begin(&stage, SERVICE, "--to v2 --retire shutdown")?;

    shut_down(&stage, &new, "v2", PROBES)?;
    for _ in 0..100 {
        connected(stage.world.client(), stage.world.v4(PORT))?;
    }
    let status = stage.status()?;
    let outcomes = &status.groups[0].outcomes.new;
    ensure!(outcomes.probed > 0 && outcomes.kernel == 0, "{outcomes:?}");
    ensure!(status.migration.is_some(), "the drain goes on");

    shut_down(&stage, &new, "v2", 1)?;
    migration.ends("rolled_back", 5)?;
    let old = instance_status(&stage, SERVICE, "v1")?.context("v1")?;
    ensure!(old.state == "serving", "{old:?}");
    drop(waiting);
    stands.go_on()
}

/// Shuts some of an instance's listeners down.
fn shut_down(stage: &Stage, server: &Fixture, label: &str, count: usize) -> Result<()> {
    for inode in inodes_of(stage, label)?.into_iter().take(count) {
        let process = Process::open(server.pid())?;
        let mut sockets = process.open_sockets()?.into_iter();
        let found = sockets.find(|it| it.1 == inode);
        let duplicate = process.descriptor(found.context("its descriptor")?.0)?;
        socket::shutdown(duplicate.as_fd())?;
    }
    Ok(())
}

fn inodes_of(stage: &Stage, label: &str) -> Result<Vec<u32>> {
    let instance = instance_status(stage, SERVICE, label)?.context("the instance")?;
    let ours = |row: &ListenerRow| {
        instance
            .listeners
            .iter()
            .any(|it| it.cookie == row.cookie.0)
    };
    let rows = listening(stage)?;
    Ok(rows.into_iter().filter(ours).map(|it| it.inode).collect())
}

fn listening(stage: &Stage) -> Result<Vec<ListenerRow>> {
    let diag = stage.world.server().enter(SockDiag::open)??;
    Ok(diag.listeners(Some(PORT))?)
}
