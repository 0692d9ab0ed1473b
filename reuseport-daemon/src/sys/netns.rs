//! Network namespaces as descriptors.
//!
//! A namespace made here has no name and is mounted nowhere: it lives as long as a descriptor, a
//! process or a socket uses it, so there is nothing to clean up after a crash.

#![expect(unsafe_code, reason = "calls that rustix and socket2 do not have")]

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    panic,
    path::{Path, PathBuf},
    process, thread,
};

use rustix::{
    fs::{Mode, OFlags},
    thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe},
};
use thiserror::Error;

/// A namespace that cannot be had or entered.
#[derive(Debug, Error)]
pub enum NetnsError {
    /// The file cannot be opened.
    #[error("open the network namespace {}", path.display())]
    Open {
        /// Which file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The file is something else.
    #[error("{} is not a network namespace", .0.display())]
    NotOne(PathBuf),
    /// `unshare` refused; it takes `CAP_SYS_ADMIN`.
    #[error("create a network namespace")]
    Create(#[source] io::Error),
    /// `setns` refused; it takes `CAP_SYS_ADMIN`.
    #[error("enter the network namespace")]
    Enter(#[source] io::Error),
    /// No thread to enter it with.
    #[error("start a thread for the network namespace")]
    Thread(#[source] io::Error),
    /// The descriptor tells nothing of itself.
    #[error("identify the network namespace")]
    Identify(#[source] io::Error),
}

/// Which namespace it is, as long as it lives: two descriptors are of one namespace exactly where
/// this is the same (namespaces(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NetnsId {
    /// Device of the namespace file system.
    pub device: u64,
    /// Inode there, the number in `net:[...]`.
    pub inode: u64,
}

/// A network namespace, kept alive by a descriptor of it.
#[derive(Debug)]
pub struct Netns {
    fd: OwnedFd,
}

impl Netns {
    /// The calling thread's namespace.
    ///
    /// # Errors
    ///
    /// [`NetnsError::Open`] where `/proc` is not mounted.
    pub fn current() -> Result<Self, NetnsError> {
        Self::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// The namespace that `path` names: a file below `/proc/PID/ns`, a bind mount of one, or
    /// another process's [`Netns::path`].
    ///
    /// # Errors
    ///
    /// [`NetnsError::Open`], or [`NetnsError::NotOne`] for any other file.
    pub fn open(path: &Path) -> Result<Self, NetnsError> {
        // A path from a command line can be a pipe or a terminal: neither may block this or become
        // its own.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd =
            rustix::fs::open(path, flags, Mode::empty()).map_err(|source| NetnsError::Open {
                path: path.to_owned(),
                source: source.into(),
            })?;
        // SAFETY: the descriptor is open, and NS_GET_NSTYPE takes no argument that could be wrong;
        // other kinds of file answer ENOTTY.
        let kind = unsafe { libc::ioctl(fd.as_raw_fd(), libc::NS_GET_NSTYPE) };
        if kind == libc::CLONE_NEWNET {
            Ok(Self { fd })
        } else {
            Err(NetnsError::NotOne(path.to_owned()))
        }
    }

    /// A new namespace with nothing in it but a loopback device that is down.
    ///
    /// # Errors
    ///
    /// [`NetnsError::Create`] without `CAP_SYS_ADMIN`.
    pub fn create() -> Result<Self, NetnsError> {
        in_thread(|| {
            // SAFETY: only this thread moves, it owns no descriptor table of its own (no
            // CLONE_FILES), and it ends with this closure.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }
                .map_err(|source| NetnsError::Create(source.into()))?;
            Self::current()
        })
    }

    /// Runs `f` in this namespace, on a thread that has ended when this returns. Sockets that `f`
    /// makes stay in it, as do the processes and threads that it starts: both inherit the
    /// namespace of the thread that starts them.
    ///
    /// # Errors
    ///
    /// [`NetnsError::Enter`] without `CAP_SYS_ADMIN`.
    ///
    /// # Panics
    ///
    /// Where `f` does.
    pub fn enter<R: Send>(&self, f: impl FnOnce() -> R + Send) -> Result<R, NetnsError> {
        in_thread(|| {
            move_into_link_name_space(self.fd.as_fd(), Some(LinkNameSpaceType::Network))
                .map_err(|source| NetnsError::Enter(source.into()))?;
            Ok(f())
        })
    }

    /// Starts a thread that lives in this namespace.
    ///
    /// # Errors
    ///
    /// [`NetnsError::Enter`], or [`NetnsError::Thread`] where there is no room for one more.
    pub fn spawn<R: Send + 'static>(
        &self,
        thread: thread::Builder,
        f: impl FnOnce() -> R + Send + 'static,
    ) -> Result<thread::JoinHandle<R>, NetnsError> {
        self.enter(|| thread.spawn(f))?.map_err(NetnsError::Thread)
    }

    /// Which namespace this is.
    ///
    /// # Errors
    ///
    /// [`NetnsError::Identify`], which no kernel is known to give.
    pub fn identity(&self) -> Result<NetnsId, NetnsError> {
        let stat =
            rustix::fs::fstat(&self.fd).map_err(|source| NetnsError::Identify(source.into()))?;
        Ok(NetnsId {
            device: stat.st_dev,
            inode: stat.st_ino,
        })
    }

    /// A path by which another process of the same user can [open](Netns::open) it, while this
    /// value lives.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!(
            "/proc/{}/fd/{}",
            process::id(),
            self.fd.as_raw_fd()
        ))
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Runs `f` on a thread of its own, because a thread that has changed its namespace may not be
/// anybody else's afterwards.
fn in_thread<R: Send>(f: impl FnOnce() -> Result<R, NetnsError> + Send) -> Result<R, NetnsError> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, f)
            .map_err(NetnsError::Thread)?;
        thread
            .join()
            .unwrap_or_else(|payload| panic::resume_unwind(payload))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_current_one_is_what_its_path_names() {
        let ours = Netns::current().expect("own namespace");
        let again = Netns::open(&ours.path()).expect("by path");
        assert_eq!(
            ours.identity().expect("ours"),
            again.identity().expect("again")
        );
    }

    #[test]
    fn other_files_are_refused_by_name() {
        let refused = Netns::open(Path::new("/proc/self/ns/uts")).expect_err("uts");
        assert!(matches!(refused, NetnsError::NotOne(_)), "{refused}");
        let refused = Netns::open(Path::new("/dev/null")).expect_err("null");
        assert_eq!(refused.to_string(), "/dev/null is not a network namespace");
        let missing = Netns::open(Path::new("/nonexistent")).expect_err("nothing there");
        assert!(matches!(missing, NetnsError::Open { .. }), "{missing}");
    }
}
