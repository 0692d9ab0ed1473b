//! `cargo xtask demo`: the demo, from a checkout.

use std::process::Command;

use anyhow::Result;

use crate::{paths, run};

/// Builds the programs and runs the demo with `arguments`; as root, by `sudo` where this is not.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let root = paths::root();
    run::run(run::cargo(root).args([
        "build",
        "--package",
        "reuseport-daemon",
        "--bins",
        "--locked",
    ]))?;
    let program = paths::target().join("debug/reuseportctl");
    let mut demo = if rustix::process::geteuid().is_root() {
        Command::new(program)
    } else {
        let mut sudo = Command::new("sudo");
        sudo.arg(program);
        sudo
    };
    run::run(demo.arg("demo").args(arguments))
}
