//! A bpffs that takes nothing more. It has no limit of files (`bpf_get_inode`,
//! <https://elixir.bootlin.com/linux/v6.18/source/kernel/bpf/inode.c>), but it can be mounted read-only
//! under a running daemon, by whoever mounts everything read-only.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use reuseport_daemon::{api::wire::Migrate, lab::world::World};
use reuseport_tests::{
    ctl::Ctl,
    stage::{SERVICE, Stage, any_v4, v4},
    traces::Traces,
};
use rustix::mount::{MountFlags, mount_remount};

use super::{gentle_load, none_lost};

/// Services cannot be added or removed, which is refused by name and leaves no trace. Those that are
/// there are registered with and migrated as ever.
pub(crate) fn read_only() -> Result<()> {
    const ADD: &str = "service add more --listen 127.0.0.1:7778";
    let stage = Stage::set(World::loopback()?, &[any_v4()])?;
    let _v1 = stage.instance(&v4("v1"))?;
    let ctl = Ctl::of(stage.home())?;
    let load = gentle_load(&stage)?;
    let before = Traces::of(&stage)?;
    let fixed = ReadOnly::mount(&stage.home().bpffs())?;
    for refused in [
        ADD,
        "service remove game",
        "service add more --listen 127.0.0.1:7778 --park",
    ] {
        let ran = ctl.run(refused)?;
        ensure!(ran.code == 1, "{refused}: {ran:?}");
        ensure!(
            ran.err.contains("Read-only file system"),
            "{refused}: {ran:?}"
        );
        Traces::of(&stage)?.same_as(&before)?;
    }
    let _v2 = stage.instance(&v4("v2"))?;
    let parameters = Migrate {
        service: SERVICE.to_owned(),
        to: Some("v2".to_owned()),
        ..Migrate::default()
    };
    stage.migrate(&parameters, || {})?;
    drop(fixed);
    ctl.done(ADD)?;
    ctl.done("service remove more")?;
    none_lost(load)?;
    ctl.done("service remove game")?;
    Ok(())
}

/// A file system that is read-only where it is mounted, until this is dropped.
struct ReadOnly(PathBuf);

/// As the daemon mounts it.
const USUAL: MountFlags = MountFlags::NOSUID
    .union(MountFlags::NODEV)
    .union(MountFlags::NOEXEC)
    .union(MountFlags::BIND);

impl ReadOnly {
    fn mount(at: &Path) -> Result<Self> {
        mount_remount(at, USUAL.union(MountFlags::RDONLY), c"")?;
        Ok(Self(at.to_owned()))
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        // It fails where it is not mounted any more.
        let _ = mount_remount(&self.0, USUAL, c"");
    }
}
