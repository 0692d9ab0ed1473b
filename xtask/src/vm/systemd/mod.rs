//! `cargo xtask integration-test vm --systemd`: the Debian package in a Debian whose first process is
//! systemd.
//!
//! ```text
//!   debootstrap ──> base ─┐
//!   KERNEL ──> modules ───┤
//!   two packages ─────────┼──> disk ──> boot ──> verdict ──> boot ──> verdict
//!   the test, a game ─────┘
//! ```

mod disk;
mod root;

use std::fs;

use anyhow::{Context as _, Result};

use super::{
    Request,
    kernel::Kernel,
    qemu::{self, Boot},
    verdict::Verdict,
};
use crate::{paths, run, setup};

/// The kernel where none is asked for.
pub(super) const KERNEL: &str = "6.12";

/// Boots a disk with everything on it twice: the second time shows what comes back.
pub(super) fn one(wanted: &str, request: &Request) -> Result<Verdict> {
    setup::for_debian()?;
    let home = paths::target().join("vm");
    fs::create_dir_all(&home).with_context(|| format!("could not make {}", home.display()))?;
    let kernel = Kernel::find(wanted, &home)?;
    let root = home.join(format!("root.{}", std::process::id()));
    let disk = home.join(format!("disk.{}", std::process::id()));
    let played = root::compose(&kernel, &home, &root)
        .and_then(|()| disk::make(&root, &disk))
        .and_then(|()| play(&kernel, &disk, request));
    // Where they could not be made, there may be none.
    let _ = fs::remove_dir_all(&root);
    let _ = fs::remove_file(&disk);
    played
}

fn play(kernel: &Kernel, disk: &std::path::Path, request: &Request) -> Result<Verdict> {
    let mut sum = Verdict::default();
    for number in ["first", "second"] {
        run::say(&format!("the {number} boot"));
        let boot = Boot::Disk(disk);
        let verdict = qemu::boot(&kernel.image, boot, request.accel, request.deadline())?;
        verdict.judge()?;
        sum = sum.plus(verdict);
    }
    Ok(sum)
}
