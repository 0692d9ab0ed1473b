//! The first process of a virtual machine that `cargo xtask integration-test vm` boots: it mounts what
//! programs expect, loads modules, runs the tests, counts, and ends the machine.

use std::{
    fs::{self, File},
    io::{self, BufRead as _, BufReader, Write as _},
    process::{Child, Command, ExitCode, Stdio},
    thread,
};

use anyhow::{Context as _, Result, bail};
use rustix::{
    mount::{MountFlags, mount},
    process::{Pid, Resource, Rlimit, WaitOptions, setrlimit, wait},
    system::{RebootCommand, finit_module, reboot, uname},
};

/// What is mounted, with its kind.
const MOUNTS: [(&str, &str); 6] = [
    ("devtmpfs", "/dev"),
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("cgroup2", "/sys/fs/cgroup"),
    ("bpf", "/sys/fs/bpf"),
    // A root directory that is an initramfs has no attributes of files that tests ask for.
    ("tmpfs", "/tmp"),
];

/// How many descriptors a process may have.
const DESCRIPTORS: u64 = 524_288;

/// How a program of libtest's kind begins the line that counts.
const COUNTS: &str = "test result: ";

fn main() -> ExitCode {
    if !rustix::process::getpid().is_init() {
        say("error: this is the init of a virtual machine, and of no other");
        return ExitCode::FAILURE;
    }
    let verdict = match run() {
        Ok(counts) => counts.to_string(),
        Err(error) => format!("error: {error:#}"),
    };
    say(&format!("vm: {verdict}"));
    // The machine is told to end where it would start anew.
    let error = reboot(RebootCommand::Restart).err();
    say(&format!("vm: cannot end: {error:?}"));
    ExitCode::FAILURE
}

/// How many tests ended in which way.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    passed: u64,
    failed: u64,
    skipped: u64,
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            passed,
            failed,
            skipped,
        } = self;
        write!(f, "passed={passed} failed={failed} skipped={skipped}")
    }
}

fn run() -> Result<Counts> {
    for (kind, place) in MOUNTS {
        mount(kind, place, kind, MountFlags::empty(), None)
            .with_context(|| format!("could not mount {place}"))?;
    }
    // What the kernel starts with is little; this is what service managers give.
    let limit = Rlimit {
        current: Some(DESCRIPTORS),
        maximum: Some(DESCRIPTORS),
    };
    setrlimit(Resource::Nofile, limit).context("could not raise the limit of descriptors")?;
    for module in lines("modules")? {
        let file = File::open(&module).with_context(|| format!("could not open {module}"))?;
        finit_module(&file, c"", 0).with_context(|| format!("could not load {module}"))?;
    }
    say(&format!(
        "vm: Linux {}",
        uname().release().to_string_lossy()
    ));
    let arguments = lines("arguments")?;
    let environment = lines("environment")?;
    let environment: Vec<_> = environment
        .iter()
        .filter_map(|it| it.split_once('='))
        .collect();
    let mut sum = Counts::default();
    for program in lines("tests")? {
        let mut command = Command::new(&program);
        command.args(&arguments).envs(environment.iter().copied());
        let counts = test(command).with_context(|| format!("{program} did not run"))?;
        sum.passed += counts.passed;
        sum.failed += counts.failed;
        sum.skipped += counts.skipped;
    }
    Ok(sum)
}

/// One of the lists that came with the machine.
fn lines(name: &str) -> Result<Vec<String>> {
    let path = format!("/vm/{name}");
    let text = fs::read_to_string(&path).with_context(|| format!("could not read {path}"))?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// Runs a program that holds tests, and passes on what it says.
fn test(mut command: Command) -> Result<Counts> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let output = child.stdout.take().context("it has an output")?;
    let reader = thread::spawn(move || {
        let mut counts = None;
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            say(&line);
            counts = line.strip_prefix(COUNTS).and_then(counted).or(counts);
        }
        counts
    });
    let good = reap(&child)?;
    let counts = reader.join().ok().flatten().context("it did not count")?;
    // A program that fails after its count has failed in a way of its own.
    if !good && counts.failed == 0 {
        bail!("it failed, and none of its tests has");
    }
    Ok(counts)
}

/// Waits for the program, and meanwhile for everybody whose parent has ended before them: nobody else
/// does, and tests wait for processes to be gone. Tells whether it ended well.
fn reap(program: &Child) -> Result<bool> {
    let pid = Pid::from_child(program);
    loop {
        let (ended, status) = wait(WaitOptions::empty())?.context("nobody to wait for")?;
        if ended == pid {
            return Ok(status.exit_status() == Some(0));
        }
    }
}

/// `ok. 3 passed; 0 failed; 1 ignored; ...`
fn counted(text: &str) -> Option<Counts> {
    let number = |noun: &str| {
        let part = text
            .split(['.', ';'])
            .find_map(|it| it.trim().strip_suffix(noun))?;
        part.trim().parse().ok()
    };
    Some(Counts {
        passed: number("passed")?,
        failed: number("failed")?,
        skipped: number("ignored")?,
    })
}

fn say(line: &str) {
    // Nobody listens where this fails.
    let _ = writeln!(io::stdout().lock(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_from_their_line() {
        let counts = counted("FAILED. 3 passed; 2 failed; 1 ignored; 0 measured; 4 filtered out");
        assert_eq!(
            counts.map(|it| it.to_string()).as_deref(),
            Some("passed=3 failed=2 skipped=1")
        );
        assert!(counted("ok. 3 passed").is_none());
    }
}
