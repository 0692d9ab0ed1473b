//! `cargo xtask test`: every test, on the running kernel.

use std::path::Path;

use anyhow::{Result, bail};

use crate::{paths, run, setup};

/// Where the scenarios find the programs that they run.
const BIN_DIR: &str = "REUSEPORTD_BIN_DIR";

/// The eBPF object that the daemon loads instead of its own.
const OBJECT: &str = "REUSEPORTD_OBJECT";

/// Runs the tests of the workspace, then the scenarios with `arguments`, and where `object` is
/// given, with that eBPF object.
pub(crate) fn run(arguments: &[String], object: Option<&Path>) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!(
            "the scenarios load eBPF programs and make network namespaces, so they need root: \
             `sudo -E env PATH=\"$PATH\" cargo xtask test`; `cargo test` runs what does not"
        );
    }
    setup::for_tests()?;
    let root = paths::root();
    // What users run, and what the budgets are for.
    run::run(run::cargo(root).args(["build", "--workspace", "--bins", "--release", "--locked"]))?;
    run::run(run::cargo(root).args(["test", "--workspace", "--locked"]))?;
    let mut privileged = run::cargo(root);
    privileged
        .args(["test", "--locked", "-p", "reuseport-tests"])
        .args(["--features", "privileged"])
        .args(["--test", "lab", "--test", "scenarios", "--"])
        .args(arguments)
        .env(BIN_DIR, paths::target().join("release"));
    if let Some(object) = object {
        privileged.env(OBJECT, object);
    }
    run::run(&mut privileged)
}
