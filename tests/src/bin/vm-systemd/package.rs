//! The package: installed, upgraded, purged.

use std::{fs, path::Path, thread};

use anyhow::{Context as _, Result, ensure};

use super::{
    game::{CLIENTS, SERVICE, advance, churn, complete, ctl, label, status, unit, until_serving},
    machine::{run, systemctl, until, until_unit},
};

const FIRST: &str = "/srv/packages/1";
const SECOND: &str = "/srv/packages/2";

/// Whatever the package or the daemon make.
const MADE: [&str; 7] = [
    "/etc/reuseportd",
    "/run/reuseportd",
    "/sys/fs/bpf/reuseportd",
    "/usr/bin/reuseportd",
    "/usr/lib/systemd/system/reuseportd.service",
    "/etc/systemd/system/multi-user.target.wants/reuseportd.service",
    "/var/lib/systemd/deb-systemd-helper-enabled/reuseportd.service.dsh-also",
];

/// It runs, is enabled, and may do what it has to.
pub(crate) fn installed() -> Result<()> {
    install(FIRST)?;
    until_unit("reuseportd", "active")?;
    systemctl(&["is-enabled", "reuseportd"])?;
    for path in MADE {
        ensure!(Path::new(path).exists(), "there is no {path}");
    }
    ctl(&["doctor"])?;
    Ok(())
}

pub(crate) fn exposure() -> Result<()> {
    run(
        "systemd-analyze",
        &["security", "--threshold=30", "reuseportd"],
    )
    .map(|_| ())
}

/// What the unit leaves it suffices for all that it can be asked for: a switch of the kernel's, a port
/// that is not everybody's, another user's sockets, another network namespace.
pub(crate) fn hardened() -> Result<()> {
    for state in ["on", "off"] {
        ctl(&["migrate-req", state])?;
    }
    let add = ["service", "add", "--park", "--listen", "0.0.0.0:80"];
    ctl(&[&add[..], &["low", "--user", "game"]].concat())?;
    run("ip", &["netns", "add", "elsewhere"])?;
    ctl(&[&add[..], &["elsewhere", "--netns", "/run/netns/elsewhere"]].concat())?;
    let listeners = run("ss", &["-Hltne"])?;
    let low = listeners.lines().find(|it| it.contains("0.0.0.0:80 "));
    ensure!(low.is_some_and(|it| it.contains("uid:900")), "{listeners}");
    for name in ["low", "elsewhere"] {
        ctl(&["service", "remove", name])?;
    }
    run("ip", &["netns", "delete", "elsewhere"])?;
    Ok(())
}

/// The daemon is exchanged while the old server hangs and keeps a migration from its end.
pub(crate) fn upgraded() -> Result<()> {
    let (old, new) = (unit("v3"), unit("v4"));
    systemctl(&["enable", "--now", &new])?;
    let players = churn()?;
    systemctl(&["kill", "--signal", "STOP", &old])?;
    until("players wait for the old server", || {
        let instances = status()?.instances;
        let old = instances.iter().find(|it| it.label == old);
        let listeners = old.map(|it| it.listeners.as_slice()).unwrap_or_default();
        let queued: u32 = listeners.iter().filter_map(|it| it.accept_queue).sum();
        Ok(queued > 0 && queued <= CLIENTS)
    })?;
    let target = new.clone();
    let migration = thread::spawn(move || {
        let limit = ["--drain-timeout", "30m"];
        ctl(&[&["migrate", SERVICE, "--to-unit", &target], &limit[..]].concat())
    });
    until("the service moves", || Ok(status()?.migration.is_some()))?;
    install(SECOND)?;
    let version = run(
        "dpkg-query",
        &["--show", "--showformat=${Version}", "reuseportd"],
    )?;
    ensure!(version.ends_with("-2"), "{version}");
    until_unit("reuseportd", "active")?;
    ensure!(status()?.migration.is_some(), "{:?}", status()?);
    let told = migration.join().ok().context("who asked for it")?;
    let told = format!("{:#}", told.err().context("an end of who asked for it")?);
    ensure!(told.contains("the migration goes on"), "{told}");
    systemctl(&["kill", "--signal", "CONT", &old])?;
    until("the migration is over", || {
        Ok(status()?.migration.is_none())
    })?;
    until_serving("v4")?;
    let moved = players.mark();
    advance(&players, 50)?;
    let ledger = complete(players)?;
    let after = ledger.begun_since(moved);
    ensure!(after.keys().eq([&label("v4")?]), "{after:?}");
    systemctl(&["disable", "--now", &old])?;
    Ok(())
}

/// Nothing is left, and the game goes on.
pub(crate) fn purged() -> Result<()> {
    let players = churn()?;
    run("dpkg", &["--purge", "reuseportd"])?;
    for path in MADE {
        ensure!(!Path::new(path).exists(), "{path} is left");
    }
    for (file, what) in [("/etc/passwd", "user"), ("/etc/group", "group")] {
        let text = fs::read_to_string(file)?;
        ensure!(!text.contains("reuseportd"), "its {what} is left");
    }
    advance(&players, 50)?;
    complete(players)?;
    let left = run("dpkg-query", &["--show", "--showformat=${Package} "])?;
    ensure!(!left.contains("reuseportd"), "{left}");
    Ok(())
}

/// Exchanges the daemon for itself.
pub(crate) fn install_again() -> Result<()> {
    install(FIRST)?;
    until_unit("reuseportd", "active")
}

fn install(directory: &str) -> Result<()> {
    let mut packages = fs::read_dir(directory)?;
    let package = packages.next().context("a package")??.path();
    let package = package.to_str().context("a path")?;
    run("dpkg", &["--install", package]).map(|_| ())
}
