//! `cargo xtask bench`: the benchmarks, on programs as users run them.

use std::process::Command;

use anyhow::Result;

use crate::{integration, paths, run, setup};

/// The page that shows the results.
const PAGE: &str = "docs/performance.md";

/// Builds the programs in release and measures them.
pub(crate) fn run(names: &[String], quick: bool, json: bool, write: bool) -> Result<()> {
    integration::needs_root()?;
    setup::for_benchmarks()?;
    let root = paths::root();
    run::run(run::cargo(root).args(["build", "--workspace", "--bins", "--release", "--locked"]))?;
    let release = paths::target().join("release");
    let mut bench = Command::new(release.join("bench"));
    bench.args(names).env(integration::BIN_DIR, release);
    for (wanted, option) in [(quick, "--quick"), (json, "--json")] {
        if wanted {
            bench.arg(option);
        }
    }
    if write {
        bench.arg("--page").arg(root.join(PAGE));
    }
    run::run(&mut bench)
}
