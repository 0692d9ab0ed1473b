//! What is on the disk: a small Debian, and what is tested in it.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    deb, paths, run,
    vm::{debian, kernel::Kernel},
};

/// What a machine needs beside the packages that Debian always has: the init, what loads modules, and
/// what the game is written in.
const PACKAGES: &str = "systemd,systemd-sysv,kmod,procps,iproute2,python3-minimal";

/// The test, by its target's name.
const TEST: &str = "vm-systemd";

const TEST_UNIT: &str = "\
[Unit]
Description=Tests of reuseportd
After=multi-user.target

[Service]
Type=oneshot
ExecStart=/usr/local/bin/vm-systemd
StandardOutput=file:/dev/console
StandardError=inherit
TimeoutStartSec=infinity
# What `systemctl reboot` asks for it first is not installed.
ExecStopPost=/bin/systemctl --no-block --job-mode=replace-irreversibly start reboot.target
";

/// Files of this checkout's, by the places that they get.
const FILES: [(&str, &str); 6] = [
    ("examples/game@.service", "etc/systemd/system/game@.service"),
    ("examples/deploy.sh", "srv/game/deploy.sh"),
    ("examples/game.py", "srv/game/v1/game.py"),
    ("examples/game.py", "srv/game/v2/game.py"),
    ("examples/game.py", "srv/game/v3/game.py"),
    ("examples/game.py", "srv/game/v4/game.py"),
];

/// Texts, by the places that they are added to.
const TEXTS: [(&str, &str); 6] = [
    ("etc/passwd", "game:x:900:900::/:/usr/sbin/nologin\n"),
    ("etc/group", "game:x:900:\n"),
    ("etc/hostname", "reuseportd\n"),
    ("etc/fstab", "/dev/nvme0n1 / ext4 defaults 0 0\n"),
    ("etc/systemd/system/vm-systemd.service", TEST_UNIT),
    // On the console, the tests are to be alone.
    (
        "etc/systemd/system.conf.d/quiet.conf",
        "[Manager]\nShowStatus=no\n",
    ),
];

/// Links, by their places: what is started, and what is not.
const LINKS: [(&str, &str); 2] = [
    (
        "etc/systemd/system/default.target.wants/vm-systemd.service",
        "/etc/systemd/system/vm-systemd.service",
    ),
    ("etc/systemd/system/serial-getty@ttyS0.service", "/dev/null"),
];

/// Puts everything into the directory `root`, which it makes.
pub(super) fn compose(kernel: &Kernel, home: &Path, root: &Path) -> Result<()> {
    let base = base(home)?;
    run::run(
        Command::new("cp")
            .args(["--archive", "--reflink=auto"])
            .args([&*base, root]),
    )?;
    if let Some(tree) = &kernel.tree {
        let modules = root.join("usr/lib/modules");
        fs::create_dir_all(&modules)?;
        run::run(Command::new("cp").arg("--recursive").args([tree, &modules]))?;
    }
    // The same programs twice: what is exchanged is the package.
    for revision in ["1", "2"] {
        deb::build(Some(revision), &root.join("srv/packages").join(revision))?;
    }
    copy(&test()?, &root.join("usr/local/bin").join(TEST))?;
    for (source, place) in FILES {
        copy(&paths::root().join(source), &root.join(place))?;
    }
    for (place, text) in TEXTS {
        append(&root.join(place), text)?;
    }
    for (place, target) in LINKS {
        let place = root.join(place);
        fs::create_dir_all(place.parent().unwrap_or(root))?;
        symlink(target, &place).with_context(|| format!("could not make {}", place.display()))?;
    }
    Ok(())
}

/// Debian as it is before anything is done to it, fetched once. It is the release that runs here, so
/// that what is built here runs there.
fn base(home: &Path) -> Result<PathBuf> {
    let release = fs::read_to_string("/etc/os-release")?;
    let suite = release
        .lines()
        .find_map(|it| it.strip_prefix("VERSION_CODENAME="));
    let suite = suite.context("this system does not say which release of Debian it is")?;
    // Another choice of packages is another base.
    let base = home.join(format!("debian-{suite}-{}", PACKAGES.replace(',', "+")));
    if base.is_dir() {
        return Ok(base);
    }
    // Under its name once it is whole.
    let partial = home.join("debian.partial");
    if partial.is_dir() {
        fs::remove_dir_all(&partial)?;
    }
    run::run(
        Command::new("debootstrap")
            .args(["--variant=minbase", &format!("--include={PACKAGES}")])
            .arg(suite)
            .arg(&partial)
            .arg(debian::mirror()?),
    )?;
    let fetched = partial.join("var/cache/apt/archives");
    fs::remove_dir_all(&fetched).with_context(|| format!("no {}", fetched.display()))?;
    fs::rename(&partial, &base)?;
    Ok(base)
}

fn test() -> Result<PathBuf> {
    run::run(
        run::cargo(paths::root())
            .args(["build", "--locked", "--package", "reuseport-tests"])
            .args(["--bin", TEST]),
    )?;
    Ok(paths::target().join("debug").join(TEST))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to.parent().unwrap_or(to))?;
    ensure!(from.is_file(), "there is no {}", from.display());
    fs::copy(from, to).with_context(|| format!("could not copy {}", from.display()))?;
    Ok(())
}

fn append(to: &Path, text: &str) -> Result<()> {
    fs::create_dir_all(to.parent().unwrap_or(to))?;
    let there = fs::read_to_string(to).unwrap_or_default();
    fs::write(to, there + text).with_context(|| format!("could not write {}", to.display()))
}
