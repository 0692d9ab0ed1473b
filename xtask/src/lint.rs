//! `cargo xtask lint`: what needs neither root nor the eBPF compiler.

use std::process::Command;

use anyhow::Result;

use crate::{paths, run};

const DENY: &str = "cargo-deny";
const DENY_VERSION: &str = "0.20.2";

/// Formatting, clippy and cargo-deny, for the workspace and for the eBPF crate.
pub(crate) fn run() -> Result<()> {
    let workspace = paths::root();
    let ebpf = workspace.join("reuseport-ebpf");
    for directory in [workspace, &ebpf] {
        run::run(run::cargo(directory).args(["fmt", "--all", "--check"]))?;
    }
    run::run(
        run::cargo(workspace)
            .args(["clippy", "--workspace", "--all-targets", "--all-features"])
            .args(["--locked", "--", "-D", "warnings"]),
    )?;
    // For the host, where stable Rust has a `core`: types and lints are the same there.
    run::run(
        run::cargo(&ebpf)
            .args(["clippy", "--locked", "--target-dir"])
            .arg(paths::target().join("ebpf"))
            .args(["--", "-D", "warnings"]),
    )?;
    let deny = run::tool(DENY, DENY_VERSION, &[])?;
    for directory in [workspace, &ebpf] {
        run::run(
            Command::new(&deny)
                .current_dir(directory)
                .args(["--locked", "--config"])
                .arg(workspace.join("deny.toml"))
                // Advisories come from a server that is no package registry.
                .args(["check", "bans", "licenses", "sources"]),
        )?;
    }
    Ok(())
}
