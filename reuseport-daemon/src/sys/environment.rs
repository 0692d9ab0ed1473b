//! What a service manager gives a process along: where to tell it something, and descriptors
//! (`sd_listen_fds(3)`).

#![expect(
    unsafe_code,
    reason = "descriptors by their number, and the environment's variables"
)]

use std::{
    env,
    ffi::{OsStr, OsString},
    fs, io,
    os::fd::{FromRawFd, OwnedFd},
    process,
    str::FromStr,
    time::Duration,
};

use rustix::io::{FdFlags, fcntl_setfd};
use thiserror::Error;

const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";
const WATCHDOG_PID: &str = "WATCHDOG_PID";
const WATCHDOG_USEC: &str = "WATCHDOG_USEC";
const LISTEN_PID: &str = "LISTEN_PID";
const LISTEN_FDS: &str = "LISTEN_FDS";
const LISTEN_FDNAMES: &str = "LISTEN_FDNAMES";

/// Newer managers say who is meant in this way too.
const LISTEN_PIDFDID: &str = "LISTEN_PIDFDID";

/// The number of the first descriptor that is passed, `SD_LISTEN_FDS_START`.
const FIRST: i32 = 3;

/// What the service manager said, which nobody can take twice.
#[derive(Debug, Default)]
pub struct Environment {
    /// Where to tell it something, `NOTIFY_SOCKET`.
    pub notify: Option<OsString>,
    /// How long it waits for a sign of life, `WATCHDOG_USEC` (`sd_watchdog_enabled(3)`).
    pub watchdog: Option<Duration>,
    /// What it has passed.
    pub passed: Vec<PassedIn>,
}

/// A descriptor that the service manager has passed, close-on-exec.
#[derive(Debug)]
pub struct PassedIn {
    /// What it is called. Without names, or with too few, all are called nothing.
    pub name: String,
    /// The descriptor.
    pub fd: OwnedFd,
}

/// Why nothing is taken.
#[derive(Debug, Error)]
pub enum EnvironmentError {
    /// Whoever reads a variable while it is removed reads what is no longer there.
    #[error("the environment cannot be changed by one of {0} threads")]
    Threads(usize),
    /// `/proc`.
    #[error("cannot count the threads")]
    Count(#[source] io::Error),
    /// A descriptor cannot be made close-on-exec.
    #[error("fcntl(F_SETFD) on a descriptor that was passed")]
    CloseOnExec(#[source] io::Error),
}

impl Environment {
    /// Takes it out of the process's environment, so that no child sees it. To be done before
    /// anything else is: before there are other threads, and before this process opens descriptors
    /// of its own.
    ///
    /// # Errors
    ///
    /// [`EnvironmentError`]
    pub fn take() -> Result<Self, EnvironmentError> {
        let threads = fs::read_dir("/proc/self/task")
            .map_err(EnvironmentError::Count)?
            .count();
        if threads != 1 {
            return Err(EnvironmentError::Threads(threads));
        }
        let notify = take(NOTIFY_SOCKET);
        let watchdog = watchdog(
            take(WATCHDOG_PID).as_deref(),
            take(WATCHDOG_USEC).as_deref(),
        );
        let pid = take(LISTEN_PID);
        let count = take(LISTEN_FDS);
        let names = take(LISTEN_FDNAMES);
        take(LISTEN_PIDFDID);
        let ours = number(pid.as_deref()) == Some(process::id());
        let count = number(count.as_deref()).filter(|_| ours).unwrap_or(0);
        let mut fds = Vec::new();
        // The first that is not there ends it, whatever was said of their number.
        while u32::try_from(fds.len()).is_ok_and(|it| it < count) {
            let Some(fd) = i32::try_from(fds.len()).ok().and_then(|it| own(FIRST + it)) else {
                break;
            };
            let set = fcntl_setfd(&fd, FdFlags::CLOEXEC);
            set.map_err(|error| EnvironmentError::CloseOnExec(error.into()))?;
            fds.push(fd);
        }
        let names = named(names.as_deref(), fds.len()).into_iter();
        let passed = names.zip(fds).map(|(name, fd)| PassedIn { name, fd });
        Ok(Self {
            notify: notify.filter(|it| !it.is_empty()),
            watchdog,
            passed: passed.collect(),
        })
    }
}

/// Takes a variable out of the environment.
fn take(variable: &str) -> Option<OsString> {
    let value = env::var_os(variable);
    // SAFETY: this is the only thread, as has been seen, and it starts none meanwhile.
    unsafe { env::remove_var(variable) };
    value
}

/// Meant for this process unless another one is named.
fn watchdog(pid: Option<&OsStr>, limit: Option<&OsStr>) -> Option<Duration> {
    if pid.is_some() && number(pid) != Some(process::id()) {
        return None;
    }
    let limit = number(limit).filter(|it| *it > 0)?;
    Some(Duration::from_micros(limit))
}

fn number<T: FromStr>(text: Option<&OsStr>) -> Option<T> {
    text?.to_str()?.parse().ok()
}

/// A descriptor that is open and nobody else's.
fn own(fd: i32) -> Option<OwnedFd> {
    // SAFETY: the call takes any number, and answers EBADF where nothing is open.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFD) };
    if flags < 0 {
        return None;
    }
    // SAFETY: it is open. It was before this process began, and who started it has said that it is
    // passed: no part of this process has made it or knows of it. It is not taken twice, the variables
    // that speak of it having been removed.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The names of so many descriptors.
fn named(names: Option<&OsStr>, count: usize) -> Vec<String> {
    let names = names.and_then(OsStr::to_str).unwrap_or_default();
    let names: Vec<String> = names.split(':').map(ToOwned::to_owned).collect();
    if names.len() == count {
        names
    } else {
        vec![String::new(); count]
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn each_has_its_name_or_none_has() {
        let named = |names: Option<&str>, count| named(names.map(OsStr::new), count);
        assert_eq!(named(Some("a:b"), 2), ["a", "b"]);
        assert_eq!(named(Some("a::b"), 3), ["a", "", "b"]);
        assert_eq!(named(Some("a"), 2), ["", ""]);
        assert_eq!(named(Some("a:b"), 1), [""]);
        assert_eq!(named(None, 2), ["", ""]);
        assert_eq!(named(None, 0), [""; 0]);
    }

    #[test]
    fn a_watchdog_may_be_somebody_elses() {
        let watchdog = |pid: Option<&str>, limit: Option<&str>| {
            watchdog(pid.map(OsStr::new), limit.map(OsStr::new))
        };
        let ours = process::id().to_string();
        let minute = Some(Duration::from_secs(60));
        assert_eq!(watchdog(None, Some("60000000")), minute);
        assert_eq!(watchdog(Some(&ours), Some("60000000")), minute);
        assert_eq!(watchdog(Some("1"), Some("60000000")), None);
        for none in [None, Some("0"), Some("soon")] {
            assert_eq!(watchdog(None, none), None);
        }
    }

    #[test]
    fn beside_other_threads_nothing_is_taken() {
        // A test is run by a thread of its own, beside the one that waits for it.
        let error = thread::scope(|scope| scope.spawn(Environment::take).join());
        let error = error.expect("no panic").expect_err("threads");
        assert!(matches!(error, EnvironmentError::Threads(2..)), "{error}");
    }
}
