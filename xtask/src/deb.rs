//! `cargo xtask deb`: the Debian package.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};

use crate::{paths, run, setup};

const CARGO_DEB: &str = "cargo-deb";
const CARGO_DEB_VERSION: &str = "3.8.0";

/// Its defaults are another compression and build identifiers.
const PLAIN: [&str; 1] = ["--no-default-features"];

/// Builds the package, and says where it is.
pub(crate) fn run() -> Result<()> {
    // Not where cargo-deb puts it by itself: there, the next run of it takes the package away.
    let package = build(None, &paths::target().join("deb"))?;
    run::show(&package.display().to_string());
    Ok(())
}

/// Builds the package as users get it, into the directory `to`. `revision` tells packages of the same
/// version apart.
pub(crate) fn build(revision: Option<&str>, to: &Path) -> Result<PathBuf> {
    setup::for_packages()?;
    fs::create_dir_all(to).with_context(|| format!("could not make {}", to.display()))?;
    let root = paths::root();
    let mut deb = Command::new(run::tool(CARGO_DEB, CARGO_DEB_VERSION, &PLAIN)?);
    deb.current_dir(root)
        .args(["--package", "reuseport-daemon", "--locked"])
        .args(["--strip", "--output"])
        .arg(to);
    if let Some(revision) = revision {
        deb.args(["--deb-revision", revision]);
    }
    let printed = run::output(deb.stderr(Stdio::inherit()))?;
    let last = printed.lines().last();
    Ok(last.context("cargo-deb says what it has made")?.into())
}
