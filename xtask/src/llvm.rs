//! The LLVM of a compiler, and the linker that goes with it.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{paths, run};

const LINKER: &str = "bpf-linker";
const LINKER_VERSION: &str = "0.13.0";

/// An installed LLVM.
#[derive(Debug)]
pub(crate) struct Llvm {
    prefix: PathBuf,
    major: String,
    /// Its version.
    pub(crate) version: String,
}

impl Llvm {
    /// The LLVM at `LLVM_PREFIX`, or Debian's of the same major version as the compiler's.
    pub(crate) fn find(compilers: &str) -> Result<Self> {
        let major = compilers.split('.').next().unwrap_or(compilers).to_owned();
        let prefix = env::var_os("LLVM_PREFIX")
            .map_or_else(|| format!("/usr/lib/llvm-{major}").into(), PathBuf::from);
        let missing = || {
            format!(
                "the compiler's LLVM {major} is not in {}; install it: `apt-get install -y \
                 --no-install-recommends llvm-{major}-dev`, or say where it is in LLVM_PREFIX",
                prefix.display()
            )
        };
        let config = prefix.join("bin/llvm-config");
        let version = run::output(Command::new(config).arg("--version")).with_context(missing)?;
        let version = version.trim().to_owned();
        if version.split('.').next() != Some(&major) {
            bail!(missing());
        }
        Ok(Self {
            prefix,
            major,
            version,
        })
    }

    /// One of its programs.
    pub(crate) fn program(&self, name: &str) -> Command {
        Command::new(self.prefix.join("bin").join(name))
    }

    /// A `bpf-linker` that reads what the compiler writes: from `PATH`, or built once into the
    /// target directory.
    pub(crate) fn linker(&self) -> Result<PathBuf> {
        let root = paths::tools().join(format!("llvm-{}", self.major));
        let own = root.join("bin").join(LINKER);
        for linker in paths::on_path(LINKER).iter().chain([&own]) {
            if is_right(linker) {
                return Ok(linker.clone());
            }
        }
        run::run(
            run::cargo(paths::root())
                .args(["install", LINKER, "--version", LINKER_VERSION, "--locked"])
                .args(["--no-default-features", "--features"])
                .arg(format!("llvm-{}", self.major))
                .arg("--root")
                .arg(&root)
                .env("LLVM_PREFIX", &self.prefix),
        )?;
        Ok(own)
    }

    /// What of this ends up in the object.
    pub(crate) fn described(&self) -> String {
        format!("{LINKER} {LINKER_VERSION} with LLVM {}", self.version)
    }
}

fn is_right(linker: &Path) -> bool {
    if !linker.is_file() {
        return false;
    }
    let found = run::output(Command::new(linker).arg("--version")).unwrap_or_default();
    let right = found.trim() == format!("{LINKER} {LINKER_VERSION}");
    if !right {
        run::say(&format!(
            "{} is not used: it says {:?}, and {LINKER_VERSION} is wanted",
            linker.display(),
            found.trim()
        ));
    }
    right
}
