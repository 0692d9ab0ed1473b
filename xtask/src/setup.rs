//! `cargo xtask setup`: the Debian packages that this machine lacks.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result, bail};

use crate::{llvm::Llvm, paths, run, toolchain};

/// What the tests run against, by package, and a program of it that shows that it is there.
const TESTS: [(&str, &str); 3] = [
    ("iproute2", "ip"),
    ("nginx-light", "nginx"),
    ("python3", "python3"),
];

/// What the benchmarks run against, besides.
const RIVALS: [(&str, &str); 1] = [("haproxy", "haproxy")];

/// What makes virtual machines, and looks into packages of kernels.
const MACHINES: [(&str, &str); 3] = [
    ("qemu-system-x86", "qemu-system-x86_64"),
    ("kmod", "depmod"),
    ("xz-utils", "xz"),
];

/// What makes a Debian, and a disk to put it on.
const DEBIAN: [(&str, &str); 2] = [("debootstrap", "debootstrap"), ("e2fsprogs", "mke2fs")];

/// What finds out what a package depends on.
const PACKAGES: [(&str, &str); 1] = [("dpkg-dev", "dpkg-shlibdeps")];

/// What the eBPF build needs where no compiler serves yet, and a file of it.
const COMPILER: [(&str, &str); 2] = [
    ("rustc-web", "/usr/bin/rustc"),
    (
        "rust-web-src",
        "/usr/lib/rustlib/src/rust/library/core/Cargo.toml",
    ),
];

/// Installs what the tests, the benchmarks and the eBPF build need.
pub(crate) fn run() -> Result<()> {
    for_benchmarks()?;
    if toolchain::find().is_err() {
        install(&COMPILER)?;
    }
    let toolchain = toolchain::find()?;
    if Llvm::find(&toolchain.llvm).is_err() {
        let major = toolchain.llvm.split('.').next().unwrap_or_default();
        let package = format!("llvm-{major}-dev");
        let config = format!("/usr/lib/llvm-{major}/bin/llvm-config");
        install(&[(&package, &config)])?;
    }
    Ok(())
}

/// Installs what the tests need.
pub(crate) fn for_tests() -> Result<()> {
    install(&TESTS)
}

/// Installs what the benchmarks need.
pub(crate) fn for_benchmarks() -> Result<()> {
    for_tests()?;
    install(&RIVALS)
}

/// Installs what tests on other kernels need.
pub(crate) fn for_machines() -> Result<()> {
    for_tests()?;
    install(&MACHINES)
}

/// Installs what machines with systemd are made with.
pub(crate) fn for_debian() -> Result<()> {
    install(&DEBIAN)
}

/// Installs what the Debian package is made with.
pub(crate) fn for_packages() -> Result<()> {
    install(&PACKAGES)
}

fn install(packages: &[(&str, &str)]) -> Result<()> {
    let missing: Vec<&str> = packages
        .iter()
        .filter(|(_, file)| !Path::new(file).is_file() && paths::on_path(file).is_none())
        .map(|(package, _)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(" ");
    if paths::on_path("apt-get").is_none() {
        bail!("this is no Debian: install what Debian calls {names} in this system's way");
    }
    if !rustix::process::geteuid().is_root() {
        bail!("as root: apt-get install -y --no-install-recommends {names}");
    }
    if apt_install(&missing).is_err() {
        run::say("the package lists may be old or missing");
        run::run(Command::new("apt-get").args(["update", "-q"]))?;
        apt_install(&missing).with_context(|| format!("could not install {names}"))?;
    }
    Ok(())
}

fn apt_install(packages: &[&str]) -> Result<()> {
    run::run(
        Command::new("apt-get")
            .args(["install", "-q", "-y", "--no-install-recommends"])
            .args(packages)
            .env("DEBIAN_FRONTEND", "noninteractive"),
    )
}
