//! `cargo xtask integration-test`: the scenarios, here or on other kernels.

use std::{env, path::Path};

use anyhow::{Context as _, Result, bail};
use clap::Subcommand;

use crate::{paths, run, setup, vm};

/// Where the scenarios find the programs that they run.
pub(crate) const BIN_DIR: &str = "REUSEPORTD_BIN_DIR";

/// The eBPF object that the daemon loads instead of its own.
const OBJECT: &str = "REUSEPORTD_OBJECT";

/// Says that all of the table of handshakes is played, with the value `all`.
const CELLS: &str = "REUSEPORTD_CELLS";

/// Where they run.
#[derive(Debug, Subcommand)]
pub(crate) enum Place {
    /// On the running kernel; needs root
    Local {
        /// Passed to the scenarios: a filter, --list, --exact and the like
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// On other kernels, in virtual machines
    Vm(vm::Request),
}

/// Which part of the table of handshakes is played.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cells {
    /// Those that cover it.
    Covering,
    /// Every one.
    All,
}

/// Runs them there.
pub(crate) fn run(place: &Place) -> Result<()> {
    match place {
        Place::Local { arguments } => {
            prepare()?;
            local(arguments, Cells::Covering, None)
        }
        Place::Vm(request) => vm::run(request),
    }
}

/// Runs them, the tests of their lab and the table of handshakes on the running kernel; where `object`
/// is given, with that eBPF object. After [`prepare`].
pub(crate) fn local(arguments: &[String], cells: Cells, object: Option<&Path>) -> Result<()> {
    let root = paths::root();
    // What users run, and what the budgets are for.
    run::run(run::cargo(root).args(["build", "--workspace", "--bins", "--release", "--locked"]))?;
    // The table comes last: what it needs is what the scenarios show.
    for tests in [&["lab", "scenarios"][..], &["handshakes"]] {
        let mut privileged = run::cargo(root);
        privileged
            .args(["test", "--locked", "-p", "reuseport-tests"])
            .args(["--features", "privileged"]);
        for test in tests {
            privileged.args(["--test", test]);
        }
        privileged
            .arg("--")
            .args(arguments)
            .env(BIN_DIR, paths::target().join("release"));
        match cells {
            Cells::Covering => {}
            Cells::All => _ = privileged.env(CELLS, "all"),
        }
        if let Some(object) = object {
            privileged.env(OBJECT, object);
        }
        run::run(&mut privileged)?;
    }
    Ok(())
}

/// Sees to what they need here, before anything is built.
pub(crate) fn prepare() -> Result<()> {
    needs_root().context("`cargo test` runs what does not need root")?;
    setup::for_tests()
}

/// Says what to type where this is not root.
pub(crate) fn needs_root() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        let typed: Vec<_> = env::args().skip(1).collect();
        bail!(
            "what loads eBPF programs and makes network namespaces needs root: \
             `sudo -E env PATH=\"$PATH\" cargo xtask {}`",
            typed.join(" ")
        );
    }
    Ok(())
}
