//! `cargo xtask integration-test vm`: the scenarios on other kernels, and the package under systemd.
//!
//! ```text
//!   KERNEL ──> package ──> image, modules ─┐
//!   our programs, static ──────────────────┼──> initramfs ──> qemu ──> verdict
//!   what they start of others, borrowed ───┘
//! ```

mod cpio;
mod debian;
mod initramfs;
mod kernel;
mod modules;
mod programs;
mod qemu;
mod systemd;
mod verdict;

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;

pub(crate) use self::qemu::Accel;
use self::{initramfs::Task, kernel::Kernel, programs::Programs, qemu::Boot, verdict::Verdict};
use crate::{paths, run, setup};

/// What is asked for on the command line.
#[derive(Debug, Args)]
pub(crate) struct Request {
    /// A version such as 5.10, 6.12 or 6.12.43 (the newest of Debian's that begins so), the name of a
    /// package, or a file: a .deb, or an image with lib/modules beside it
    #[arg(required_unless_present = "systemd")]
    kernels: Vec<String>,

    /// Not the scenarios, but the Debian package in a Debian with systemd, on 6.12 unless a kernel is
    /// named: deployments, restarts, kills, an upgrade, a reboot
    #[arg(long, conflicts_with_all = ["arguments", "scale"])]
    systemd: bool,

    /// Who executes the machine's instructions
    #[arg(long, value_enum, default_value_t = Accel::Tcg)]
    accel: Accel,

    /// How long a machine may run, in seconds
    #[arg(long, default_value_t = 3600)]
    deadline: u64,

    /// By how much less tests repeat what they do many times; 50 where instructions are emulated, and
    /// else 1
    #[arg(long)]
    scale: Option<u32>,

    /// Passed to the scenarios: a filter, --list, --exact and the like
    #[arg(last = true)]
    arguments: Vec<String>,
}

impl Request {
    fn deadline(&self) -> Duration {
        Duration::from_secs(self.deadline)
    }
}

/// Boots every kernel in turn, and tells at the end what came of each.
pub(crate) fn run(request: &Request) -> Result<()> {
    ensure!(
        cfg!(target_arch = "x86_64"),
        "the machines, and what runs in them, are x86-64"
    );
    setup::for_machines()?;
    let results: Vec<(&str, Result<Verdict>)> = if request.systemd {
        let kernels = request.kernels.iter().map(String::as_str);
        let default = request.kernels.is_empty().then_some(systemd::KERNEL);
        let kernels = kernels.chain(default);
        kernels.map(|it| (it, systemd::one(it, request))).collect()
    } else {
        let programs = Programs::gather()?;
        let kernels = request.kernels.iter().map(String::as_str);
        kernels
            .map(|it| (it, one(it, &programs, request)))
            .collect()
    };
    let mut failed = 0;
    for (name, result) in &results {
        match result {
            Ok(verdict) => run::say(&format!("{name}: {verdict}")),
            Err(error) => {
                failed += 1;
                run::say(&format!("{name}: {error:#}"));
            }
        }
    }
    match failed {
        0 => Ok(()),
        _ => bail!("{failed} of {} kernels", results.len()),
    }
}

fn one(wanted: &str, programs: &Programs, request: &Request) -> Result<Verdict> {
    let home = paths::target().join("vm");
    fs::create_dir_all(&home).with_context(|| format!("could not make {}", home.display()))?;
    let kernel = Kernel::find(wanted, &home)?;
    let scale = request.scale.unwrap_or(match request.accel {
        Accel::Tcg => 50,
        Accel::Kvm => 1,
    });
    let task = Task {
        environment: vec![
            "PATH=/bin".to_owned(),
            "REUSEPORTD_BIN_DIR=/bin".to_owned(),
            format!("REUSEPORTD_SCALE={scale}"),
            format!("REUSEPORTD_WITHOUT={}", programs.missing.join(",")),
        ],
        arguments: &request.arguments,
    };
    // A name of its own, so that two of these can run at a time.
    let initramfs = home.join(format!("initramfs.{}", std::process::id()));
    initramfs::write(&initramfs, programs, &kernel.modules, &task)?;
    let boot = Boot::Initramfs(&initramfs);
    let verdict = qemu::boot(&kernel.image, boot, request.accel, request.deadline());
    fs::remove_file(&initramfs)?;
    let verdict = verdict?;
    verdict.judge()?;
    Ok(verdict)
}
