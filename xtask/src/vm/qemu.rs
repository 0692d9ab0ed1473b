//! One boot of a kernel, from the first line on its console to the last.

use std::{
    ffi::OsString,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use super::verdict::Verdict;
use crate::run;

const QEMU: &str = "qemu-system-x86_64";

/// The console is the first serial port. A kernel that panics reboots at once, which ends qemu.
const COMMAND_LINE: &str = "console=ttyS0 loglevel=4 panic=-1";

/// Who executes the machine's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Accel {
    /// qemu itself, which works everywhere and is 10 to 50 times slower
    Tcg,
    /// The processor, where /dev/kvm works
    Kvm,
}

impl Accel {
    fn arguments(self) -> [&'static str; 4] {
        match self {
            Self::Tcg => ["-accel", "tcg,thread=multi", "-cpu", "max"],
            Self::Kvm => ["-accel", "kvm", "-cpu", "host"],
        }
    }
}

/// What the machine starts from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Boot<'a> {
    /// An initramfs, which is all that it has.
    Initramfs(&'a Path),
    /// A disk, which keeps what is written to it.
    Disk(&'a Path),
}

impl Boot<'_> {
    /// Debian's cloud kernels have the drivers of this disk built in, and of no simpler one.
    fn arguments(self) -> Vec<OsString> {
        let text = |text: &str| OsString::from(text);
        match self {
            Self::Initramfs(file) => vec![
                text("-initrd"),
                file.into(),
                text("-append"),
                text(COMMAND_LINE),
            ],
            Self::Disk(file) => {
                let mut drive = text("if=none,id=root,format=raw,cache=unsafe,file=");
                drive.push(file);
                vec![
                    text("-drive"),
                    drive,
                    text("-device"),
                    text("nvme,drive=root,serial=root"),
                    text("-append"),
                    text(&format!("{COMMAND_LINE} root=/dev/nvme0n1 rw")),
                ]
            }
        }
    }
}

/// Boots, shows what the console says, and returns the verdict. qemu is gone when this returns.
pub(super) fn boot(
    image: &Path,
    boot: Boot<'_>,
    accel: Accel,
    deadline: Duration,
) -> Result<Verdict> {
    let mut command = Command::new("setpriv");
    command
        // It ends with who watches it, also where that is killed.
        .args(["--pdeathsig", "KILL", QEMU])
        .args(accel.arguments())
        .args(["-m", "2048", "-smp", "2", "-nodefaults", "-no-user-config"])
        .args(["-display", "none", "-serial", "stdio", "-no-reboot"])
        .arg("-kernel")
        .arg(image)
        .args(boot.arguments())
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let line = run::line(&command);
    run::say(&line);
    let child = command.spawn();
    let machine = Machine(child.with_context(|| format!("could not start `{line}`"))?);
    watch(machine, deadline)
}

/// Killed by its pid when dropped.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        // Both fail only where it has ended and been waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn watch(mut machine: Machine, deadline: Duration) -> Result<Verdict> {
    let end = Instant::now() + deadline;
    let console = machine.0.stdout.take().context("qemu has an output")?;
    let (lines, console_lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(console).split(b'\n').map_while(Result::ok) {
            if lines.send(line).is_err() {
                return;
            }
        }
    });
    let mut verdict = None;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        match console_lines.recv_timeout(left) {
            Ok(line) => {
                let line = String::from_utf8_lossy(&line);
                let line = line.trim_end_matches('\r');
                run::show(line);
                verdict = Verdict::find(line).or(verdict);
            }
            Err(RecvTimeoutError::Timeout) => {
                bail!(
                    "the machine has not come to an end in {} s",
                    deadline.as_secs()
                )
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    verdict.context("the machine has ended without a verdict")
}
