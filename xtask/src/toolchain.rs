//! Finding a compiler for the eBPF target: one that has the standard library's sources, since
//! nobody ships a compiled `core` for it.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{paths, run};

/// Names the compiler to use instead of the ones that would be found.
const OVERRIDE: &str = "REUSEPORTD_EBPF_RUSTC";

/// Where Debian's `rustc-web` puts its compiler, whatever comes first in `PATH`.
const DEBIAN: &str = "/usr/bin/rustc";

const INSTALL: &str = "`cargo xtask setup`, which is `apt-get install -y --no-install-recommends \
                       rustc-web rust-web-src llvm-22-dev`, or `rustup toolchain install nightly \
                       --component rust-src`";

/// A compiler that can build for the eBPF target.
#[derive(Debug)]
pub(crate) struct Toolchain {
    /// Its `rustc`.
    pub(crate) rustc: PathBuf,
    /// The directory that has `library/core` in it.
    pub(crate) sources: PathBuf,
    /// What `rustc --version` says.
    pub(crate) version: String,
    /// The version of its LLVM.
    pub(crate) llvm: String,
}

/// The compiler that `REUSEPORTD_EBPF_RUSTC` names, else a rustup nightly with `rust-src`, else
/// Debian's.
pub(crate) fn find() -> Result<Toolchain> {
    if let Some(rustc) = env::var_os(OVERRIDE) {
        return inspect(Path::new(&rustc))
            .with_context(|| format!("{OVERRIDE}={} does not serve", rustc.display()));
    }
    let mut tried = Vec::new();
    for (name, rustc) in [
        ("rustup's nightly", rustup_nightly()),
        ("Debian's rustc-web", Ok(PathBuf::from(DEBIAN))),
    ] {
        match rustc.and_then(|rustc| inspect(&rustc)) {
            Ok(toolchain) => return Ok(toolchain),
            Err(error) => tried.push(format!("{name}: {error:#}")),
        }
    }
    bail!(
        "no compiler for the eBPF target ({}); install one: {INSTALL}",
        tried.join("; ")
    )
}

fn rustup_nightly() -> Result<PathBuf> {
    // Asked for a toolchain that is not there, rustup would go and install it.
    let installed = run::output(Command::new("rustup").args(["toolchain", "list"]))?;
    if !installed.lines().any(|name| name.starts_with("nightly-")) {
        bail!("not installed");
    }
    let rustc =
        run::output(Command::new("rustup").args(["which", "--toolchain", "nightly", "rustc"]))?;
    Ok(rustc.trim().into())
}

fn inspect(rustc: &Path) -> Result<Toolchain> {
    if paths::on_path(&rustc.to_string_lossy()).is_none() {
        bail!("there is no {}", rustc.display());
    }
    let verbose = run::output(Command::new(rustc).arg("-vV"))?;
    let llvm = verbose
        .lines()
        .find_map(|line| line.strip_prefix("LLVM version: "))
        .context("it does not say which LLVM it has")?;
    let sysroot = run::output(Command::new(rustc).args(["--print", "sysroot"]))?;
    let sources = Path::new(sysroot.trim()).join("lib/rustlib/src/rust");
    if !sources.join("library/core").is_dir() {
        bail!(
            "it lacks the standard library's sources in {}",
            sources.display()
        );
    }
    Ok(Toolchain {
        rustc: rustc.to_owned(),
        sources,
        version: verbose.lines().next().unwrap_or_default().to_owned(),
        llvm: llvm.to_owned(),
    })
}
