//! What this kernel and this process can do. Everything is tried, nothing is inferred from a
//! version, and nothing that is tried stays.

mod judge;

use std::{
    fs,
    os::fd::{AsFd, AsRawFd},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::process::{Resource, getrlimit};
use socket2::{Domain, Socket, Type};

pub(super) use self::judge::judge;
use crate::{
    chain::chain,
    daemon::{
        parking::Keeping,
        probe::{GroupTrial, Probe},
    },
    steering::{Loader, ProgramKind, SteeringError, Trial},
    sys::{
        bpffs,
        capabilities::{Capabilities, Capability},
        confinement::Confinement,
        grace::GracePeriod,
        migrate_req,
        process::{Process, ProcessError},
        socket::{self, SocketFacts},
        sysctl,
    },
};

/// What was found out.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// Which program the kernel takes.
    program: Result<ProgramKind, Refusal>,
    /// Whether a map could be pinned and unpinned, where there was one.
    pinned: Option<Result<(), String>>,
    group: GroupTrial,
    /// Whether the kernel counts what it moves from listener to listener, which it does where it
    /// can.
    counts_migrations: Result<bool, String>,
    /// `tcp_migrate_req` in the daemon's network namespace.
    migrate_req: Option<bool>,
    /// How long a grace period took.
    grace: Result<Duration, String>,
    duplicates: Duplicates,
    /// `kernel.yama.ptrace_scope`, where there is Yama.
    yama: Option<u64>,
    missing: Result<Vec<Capability>, String>,
    bpffs: Bpffs,
    descriptors: Descriptors,
    /// Whether the service manager would keep one more parking listener, where a daemon asks.
    store: Option<Keeping>,
    confinement: Confinement,
}

/// Why it takes none.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Refusal {
    message: String,
    /// EPERM or EACCES, which are about who asks.
    not_permitted: bool,
}

/// What came of `pidfd_getfd`.
#[derive(Clone, Debug)]
struct Duplicates {
    /// On this process, which is always permitted where the kernel has the call.
    own: Result<(), String>,
    /// On process 1; nothing where this is process 1.
    of_first: Option<Result<(), String>>,
}

/// The file system for pins.
#[derive(Clone, Debug)]
struct Bpffs {
    path: PathBuf,
    is_one: Result<bool, String>,
}

/// File descriptors of this process.
#[derive(Clone, Copy, Debug)]
struct Descriptors {
    open: u64,
    /// `RLIMIT_NOFILE`, the hard one, to which the daemon raises itself; nothing where it is
    /// infinite.
    limit: Option<u64>,
}

/// Tries everything, but for what a daemon has tried at its start. `bpffs` is where services are
/// pinned, and `store` is what the service manager said.
pub(super) fn examine(
    loader: &Loader,
    bpffs: &Path,
    probe: &Probe,
    store: Option<Keeping>,
) -> Facts {
    let trial = Trial::load(loader);
    Facts {
        program: trial.as_ref().map(Trial::kind).map_err(Refusal::from),
        pinned: trial
            .as_ref()
            .ok()
            .map(|it| it.pin_below(bpffs).map_err(|error| chain(&error))),
        group: probe.found(),
        counts_migrations: migrate_req::supported().map_err(|it| chain(&it)),
        migrate_req: migrate_req::read().ok().flatten(),
        grace: try_grace(),
        duplicates: Duplicates {
            own: duplicate_own(),
            of_first: duplicate_of_first(),
        },
        yama: sysctl::number("kernel.yama.ptrace_scope").ok().flatten(),
        missing: Capabilities::effective()
            .map(|it| it.missing().collect())
            .map_err(|it| chain(&it)),
        bpffs: Bpffs {
            path: bpffs.to_owned(),
            is_one: bpffs::is_bpffs(bpffs).map_err(|it| it.to_string()),
        },
        descriptors: Descriptors {
            open: fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64),
            limit: getrlimit(Resource::Nofile).maximum,
        },
        store,
        confinement: Confinement::current(),
    }
}

impl From<&SteeringError> for Refusal {
    fn from(error: &SteeringError) -> Self {
        let io = error.io_error();
        let errno = io.and_then(std::io::Error::raw_os_error);
        Self {
            // The chain has the verifier's log in it, which is long and for developers.
            message: io.map_or_else(|| chain(error), |io| format!("{error}: {io}")),
            not_permitted: matches!(errno, Some(libc::EPERM | libc::EACCES)),
        }
    }
}

fn try_grace() -> Result<Duration, String> {
    let grace = GracePeriod::probe().map_err(|it| it.to_string())?;
    let begun = Instant::now();
    grace.wait().map_err(|it| it.to_string())?;
    Ok(begun.elapsed())
}

/// Duplicates a socket of our own, and sees that it is the same.
fn duplicate_own() -> Result<(), String> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).map_err(|it| it.to_string())?;
    let this = Process::open(std::process::id()).map_err(|it| chain(&it))?;
    let duplicate = this
        .descriptor(socket.as_raw_fd())
        .map_err(|it| chain(&it))?;
    let cookie = |fd| match socket::facts(fd) {
        Ok(SocketFacts::Tcp(facts)) => Ok(facts.cookie),
        Ok(SocketFacts::Other(_) | SocketFacts::NotASocket) => Err("no TCP socket".to_owned()),
        Err(error) => Err(chain(&error)),
    };
    if cookie(socket.as_fd())? == cookie(duplicate.as_fd())? {
        Ok(())
    } else {
        Err("the duplicate is another socket".to_owned())
    }
}

fn duplicate_of_first() -> Option<Result<(), String>> {
    const FIRST: u32 = 1;
    if std::process::id() == FIRST {
        return None;
    }
    Some(
        Process::open(FIRST)
            .and_then(|it| may_duplicate(&it))
            .map_err(|it| chain(&it)),
    )
}

/// Whether this process may duplicate another one's descriptors. It asks for one that is not there:
/// the kernel looks at the permission first, and so no duplicate comes to be (`__pidfd_fget`,
/// <https://elixir.bootlin.com/linux/v6.18/source/kernel/pid.c>).
pub(super) fn may_duplicate(process: &Process) -> Result<(), ProcessError> {
    match process.descriptor(i32::MAX) {
        Ok(_) | Err(ProcessError::NoDescriptor { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}
