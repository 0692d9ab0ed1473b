//! Processes, held so that a pid that is used again is never taken for the one that was meant.

mod descriptors;
mod holders;
mod stat;
mod tree;

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open, pidfd_send_signal},
};
use thiserror::Error;

pub use self::{
    descriptors::count_held,
    holders::holders,
    tree::{descendants, lineage},
};
use super::signal::Signal;
use crate::domain::ProcessId;

/// What can go wrong with a process.
#[derive(Debug, Error)]
pub enum ProcessError {
    /// Nothing runs under that pid, or what ran there has exited.
    #[error("there is no process {0}")]
    NoProcess(u32),
    /// The pid belongs to a later process.
    #[error("pid {0} is another process by now")]
    Replaced(u32),
    /// The process has no such descriptor.
    #[error("process {pid} has no descriptor {fd}")]
    NoDescriptor {
        /// The process.
        pid: u32,
        /// The number asked for.
        fd: i32,
    },
    /// EPERM or EACCES. Another user's descriptors take `CAP_SYS_PTRACE`, which Yama
    /// (`kernel.yama.ptrace_scope`) can ask for on one's own processes too.
    #[error("{call} of process {pid} is not permitted")]
    NotPermitted {
        /// The process.
        pid: u32,
        /// The system call or file.
        call: &'static str,
        /// EPERM or EACCES.
        #[source]
        source: io::Error,
    },
    /// Any other failure, such as no descriptor left for the daemon itself.
    #[error("{call} of process {pid} failed")]
    Call {
        /// The process.
        pid: u32,
        /// The system call or file.
        call: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// An error that may say no more than that the process has ended.
pub trait Ended {
    /// Whether it does.
    fn is_end(&self) -> bool;
}

impl Ended for ProcessError {
    fn is_end(&self) -> bool {
        matches!(self, Self::NoProcess(_) | Self::Replaced(_))
    }
}

/// What came of asking for something of a process: nothing where it has ended.
///
/// # Errors
///
/// Any other.
pub fn unless_ended<T, E: Ended>(result: Result<T, E>) -> Result<Option<T>, E> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_end() => Ok(None),
        Err(error) => Err(error),
    }
}

impl ProcessError {
    fn new(pid: u32, call: &'static str, error: Errno) -> Self {
        match error {
            Errno::SRCH => Self::NoProcess(pid),
            Errno::PERM | Errno::ACCESS => Self::NotPermitted {
                pid,
                call,
                source: error.into(),
            },
            _ => Self::Call {
                pid,
                call,
                source: error.into(),
            },
        }
    }
}

/// A process, held by a pidfd. The descriptor becomes readable when the process exits.
#[derive(Debug)]
pub struct Process {
    id: ProcessId,
    pidfd: OwnedFd,
}

impl Process {
    /// Takes hold of the process that `pid` names now.
    ///
    /// The order matters: the pidfd stands for one process for good, and as long as that one lives
    /// its pid is nobody else's. So what `/proc` said under the pid was about it if it still lives
    /// afterwards.
    ///
    /// # Errors
    ///
    /// [`ProcessError::NoProcess`] where there is none or it has exited, zombies included.
    pub fn open(pid: u32) -> Result<Self, ProcessError> {
        let raw = i32::try_from(pid)
            .ok()
            .and_then(Pid::from_raw)
            .ok_or(ProcessError::NoProcess(pid))?;
        let pidfd = pidfd_open(raw, PidfdFlags::empty()).map_err(|error| match error {
            // EINVAL, or ENOENT from Linux 6.15 on: a thread's id and no process's.
            Errno::INVAL | Errno::NOENT => ProcessError::NoProcess(pid),
            other => ProcessError::new(pid, "pidfd_open", other),
        })?;
        Self::behind(pidfd, pid)
    }

    /// The process that `pidfd` stands for, and whose pid was `pid`.
    ///
    /// # Errors
    ///
    /// [`ProcessError::NoProcess`] where it has exited.
    pub fn behind(pidfd: OwnedFd, pid: u32) -> Result<Self, ProcessError> {
        let stat = stat::read(pid);
        if is_readable(&pidfd) {
            return Err(ProcessError::NoProcess(pid));
        }
        let start_time = stat?.start_time;
        Ok(Self {
            id: ProcessId { pid, start_time },
            pidfd,
        })
    }

    /// Takes hold of a process that was met before.
    ///
    /// # Errors
    ///
    /// As [`Self::open`], and [`ProcessError::Replaced`] where the pid is another process's now.
    pub fn reopen(id: ProcessId) -> Result<Self, ProcessError> {
        let process = Self::open(id.pid)?;
        if process.id == id {
            Ok(process)
        } else {
            Err(ProcessError::Replaced(id.pid))
        }
    }

    /// Which process it is.
    #[must_use]
    pub fn id(&self) -> ProcessId {
        self.id
    }

    /// Whether the process has exited, reaped or not.
    #[must_use]
    pub fn has_exited(&self) -> bool {
        is_readable(&self.pidfd)
    }

    /// A duplicate of the process's descriptor `fd`, close-on-exec.
    ///
    /// # Errors
    ///
    /// [`ProcessError::NotPermitted`] without `CAP_SYS_PTRACE` on another user's process, or where
    /// Yama or Landlock forbids it.
    pub fn descriptor(&self, fd: i32) -> Result<OwnedFd, ProcessError> {
        let pid = self.id.pid;
        pidfd_getfd(&self.pidfd, fd, PidfdGetfdFlags::empty()).map_err(|error| match error {
            Errno::BADF => ProcessError::NoDescriptor { pid, fd },
            other => ProcessError::new(pid, "pidfd_getfd", other),
        })
    }

    /// Sends the process a signal.
    ///
    /// # Errors
    ///
    /// [`ProcessError::NoProcess`] where it has exited.
    pub fn signal(&self, signal: Signal) -> Result<(), ProcessError> {
        pidfd_send_signal(&self.pidfd, signal.raw())
            .map_err(|error| ProcessError::new(self.id.pid, "pidfd_send_signal", error))
    }

    /// Every socket among the process's descriptors, of whatever kind: descriptor and inode.
    /// Descriptors that come and go meanwhile may be in it or not.
    ///
    /// # Errors
    ///
    /// [`ProcessError::NotPermitted`] on another user's process, without `CAP_SYS_PTRACE` and
    /// `CAP_DAC_READ_SEARCH`.
    pub fn open_sockets(&self) -> Result<Vec<(i32, u32)>, ProcessError> {
        let mut sockets = Vec::new();
        descriptors::each_socket(self, |fd, inode| sockets.push((fd, inode)))?;
        Ok(sockets)
    }
}

impl From<Process> for OwnedFd {
    /// The pidfd alone.
    fn from(process: Process) -> Self {
        process.pidfd
    }
}

impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

fn is_readable(pidfd: &OwnedFd) -> bool {
    const AT_ONCE: Timespec = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // A poll that does not wait is neither interrupted nor short of memory.
    let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
    poll(&mut fds, Some(&AT_ONCE)).is_ok_and(|ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use std::{
        io::Read,
        net::TcpListener,
        os::{fd::AsRawFd, unix::process::ExitStatusExt},
        process::{Child, Command, Stdio},
    };

    use rustix::fs::fstat;

    use super::*;

    /// A process that waits for its standard input to end.
    fn cat() -> Child {
        Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("cat")
    }

    fn wait_for_exit(process: &Process) {
        let mut fds = [PollFd::new(process, PollFlags::IN)];
        let deadline = Timespec {
            tv_sec: 10,
            tv_nsec: 0,
        };
        assert_eq!(poll(&mut fds, Some(&deadline)).expect("poll"), 1);
    }

    #[test]
    fn this_process_is_itself() {
        let pid = std::process::id();
        let this = Process::open(pid).expect("open");
        assert_eq!(this.id().pid, pid);
        assert!(this.id().start_time > 0);
        assert!(!this.has_exited());
        assert_eq!(Process::reopen(this.id()).expect("reopen").id(), this.id());
    }

    #[test]
    fn a_later_process_is_not_the_same() {
        let mut id = Process::open(std::process::id()).expect("open").id();
        id.start_time += 1;
        assert!(matches!(
            Process::reopen(id),
            Err(ProcessError::Replaced(pid)) if pid == id.pid
        ));
    }

    #[test]
    fn no_process_is_said_so() {
        for pid in [0, u32::MAX, i32::MAX.unsigned_abs()] {
            assert!(matches!(
                Process::open(pid),
                Err(ProcessError::NoProcess(found)) if found == pid
            ));
        }
    }

    #[test]
    fn a_thread_is_no_process() {
        let (send, receive) = std::sync::mpsc::channel::<()>();
        let (tid_send, tid_receive) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            tid_send.send(rustix::thread::gettid()).expect("send");
            let _ = receive.recv();
        });
        let tid = tid_receive.recv().expect("tid").as_raw_nonzero().get();
        let result = Process::open(tid.unsigned_abs());
        drop(send);
        thread.join().expect("thread");
        assert!(
            matches!(result, Err(ProcessError::NoProcess(_))),
            "{result:?}"
        );
    }

    #[test]
    fn a_signal_arrives_and_the_exit_is_seen() {
        let mut child = cat();
        let process = Process::open(child.id()).expect("open");
        assert!(!process.has_exited());
        process
            .signal("TERM".parse().expect("TERM"))
            .expect("signal");
        wait_for_exit(&process);
        assert!(process.has_exited());

        // The zombie still has a /proc entry, and is no process to work with.
        assert!(matches!(
            Process::open(child.id()),
            Err(ProcessError::NoProcess(_))
        ));
        assert_eq!(child.wait().expect("wait").signal(), Some(15));
        assert!(matches!(
            process.signal("TERM".parse().expect("TERM")),
            Err(ProcessError::NoProcess(_))
        ));
        assert!(matches!(
            process.open_sockets(),
            Err(ProcessError::NoProcess(_))
        ));
    }

    #[test]
    fn a_descriptor_is_duplicated_close_on_exec() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let this = Process::open(std::process::id()).expect("open");
        let duplicate = this.descriptor(listener.as_raw_fd()).expect("descriptor");
        assert_eq!(
            fstat(&duplicate).expect("fstat").st_ino,
            fstat(&listener).expect("fstat").st_ino
        );
        let flags = rustix::io::fcntl_getfd(&duplicate).expect("flags");
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        assert!(matches!(
            this.descriptor(i32::MAX),
            Err(ProcessError::NoDescriptor { fd: i32::MAX, .. })
        ));
    }

    #[test]
    fn another_process_gives_up_its_descriptors_and_nothing_else() {
        let mut child = cat();
        let process = Process::open(child.id()).expect("open");
        let output = process.descriptor(1).expect("its output");
        assert_eq!(process.open_sockets().expect("sockets"), []);
        drop(child.stdin.take());
        child.wait().expect("wait");
        drop(output);
        let mut rest = Vec::new();
        child
            .stdout
            .take()
            .expect("stdout")
            .read_to_end(&mut rest)
            .expect("the end of the pipe");
        assert!(rest.is_empty());
    }
}
