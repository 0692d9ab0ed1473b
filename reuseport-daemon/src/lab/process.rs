//! Child processes of a test: started in a namespace, listened to with a deadline, never left behind.

use std::{
    io::{self, Read, Write},
    process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open},
};
use thiserror::Error;

use crate::sys::netns::{Netns, NetnsError};

/// A child that does not do what it should.
#[derive(Debug, Error)]
pub enum ProcessError {
    /// The namespace cannot be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The program does not start.
    #[error("start {0:?}")]
    Start(String, #[source] io::Error),
    /// Talking to it failed.
    #[error("{call} of pid {pid}")]
    Call {
        /// Which system call.
        call: &'static str,
        /// Which child.
        pid: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// It did not say or do something in time.
    #[error("pid {pid} did not {what} within {deadline:?}")]
    Late {
        /// Which child.
        pid: u32,
        /// What it should have done.
        what: String,
        /// How long it had.
        deadline: Duration,
    },
    /// It closed its output first.
    #[error("pid {pid} ended its output before it {what}")]
    Ended {
        /// Which child.
        pid: u32,
        /// What it should have done.
        what: String,
    },
}

/// A child process with pipes to its standard input and output. It is killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    unread: Vec<u8>,
}

/// How a child ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Its status.
    pub status: ExitStatus,
    /// What it printed that nobody had read by then.
    pub output: String,
}

impl Process {
    /// Starts a program in a namespace. Its standard error is this process's.
    ///
    /// # Errors
    ///
    /// [`ProcessError::Netns`] or [`ProcessError::Start`].
    pub fn start(netns: &Netns, mut command: Command) -> Result<Self, ProcessError> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let name = command.get_program().to_string_lossy().into_owned();
        // The child inherits the namespace of the thread that starts it.
        let mut child = netns
            .enter(|| command.spawn())?
            .map_err(|source| ProcessError::Start(name.clone(), source))?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let Some(stdout) = stdout else {
            let missing = io::Error::other("no pipe to its standard output");
            return Err(ProcessError::Start(name, missing));
        };
        Ok(Self {
            child,
            stdin,
            stdout,
            unread: Vec::new(),
        })
    }

    /// Its pid, which is nobody else's until it has been waited for.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Writes a line to its standard input.
    ///
    /// # Errors
    ///
    /// [`ProcessError::Call`] where it has closed that.
    pub fn say(&mut self, line: &str) -> Result<(), ProcessError> {
        let written = match &mut self.stdin {
            Some(stdin) => stdin.write_all(format!("{line}\n").as_bytes()),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        };
        written.map_err(|source| self.failed("write to the standard input", source))
    }

    /// Waits for a line of its standard output, and passes over those before it.
    ///
    /// # Errors
    ///
    /// [`ProcessError::Late`], [`ProcessError::Ended`].
    pub fn wait_for(&mut self, line: &str, deadline: Duration) -> Result<(), ProcessError> {
        let end = Instant::now() + deadline;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if self.next_line(&format!("print {line:?}"), left)? == line {
                return Ok(());
            }
        }
    }

    /// The next line of its standard output. `what` says what it should do, for the error.
    ///
    /// # Errors
    ///
    /// [`ProcessError::Late`], [`ProcessError::Ended`].
    pub fn next_line(&mut self, what: &str, deadline: Duration) -> Result<String, ProcessError> {
        let end = Instant::now() + deadline;
        loop {
            if let Some(length) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line = String::from_utf8_lossy(&self.unread[..length]).into_owned();
                self.unread.drain(..=length);
                return Ok(line);
            }
            if !self.readable(end)? {
                return Err(self.late(what.to_owned(), deadline));
            }
            if self.read_more()? == 0 {
                return Err(ProcessError::Ended {
                    pid: self.pid(),
                    what: what.to_owned(),
                });
            }
        }
    }

    /// Sends it a signal.
    ///
    /// # Errors
    ///
    /// [`ProcessError::Call`].
    pub fn signal(&self, signal: Signal) -> Result<(), ProcessError> {
        let pid = self.raw_pid()?;
        kill_process(pid, signal).map_err(|source| self.failed("kill", source.into()))
    }

    /// Closes its standard input, reads its output to the end and waits for it.
    ///
    /// # Errors
    ///
    /// [`ProcessError::Late`]; it is killed then.
    pub fn finish(mut self, deadline: Duration) -> Result<Ended, ProcessError> {
        let end = Instant::now() + deadline;
        self.stdin = None;
        loop {
            if !self.readable(end)? {
                return Err(self.late("end its output".to_owned(), deadline));
            }
            if self.read_more()? == 0 {
                break;
            }
        }
        self.wait_until(end, deadline)?;
        let status = self
            .child
            .wait()
            .map_err(|source| self.failed("wait", source))?;
        Ok(Ended {
            status,
            output: String::from_utf8_lossy(&self.unread).into_owned(),
        })
    }

    fn wait_until(&self, end: Instant, deadline: Duration) -> Result<(), ProcessError> {
        let pidfd = pidfd_open(self.raw_pid()?, PidfdFlags::empty())
            .map_err(|source| self.failed("pidfd_open", source.into()))?;
        let exited = wait_readable(&mut [PollFd::new(&pidfd, PollFlags::IN)], end)
            .map_err(|source| self.failed("poll", source))?;
        if exited {
            Ok(())
        } else {
            Err(self.late("exit".to_owned(), deadline))
        }
    }

    fn readable(&self, end: Instant) -> Result<bool, ProcessError> {
        wait_readable(&mut [PollFd::new(&self.stdout, PollFlags::IN)], end)
            .map_err(|source| self.failed("poll", source))
    }

    fn read_more(&mut self) -> Result<usize, ProcessError> {
        let mut buffer = [0; 4096];
        let length = self
            .stdout
            .read(&mut buffer)
            .map_err(|source| self.failed("read", source))?;
        self.unread.extend_from_slice(&buffer[..length]);
        Ok(length)
    }

    fn raw_pid(&self) -> Result<Pid, ProcessError> {
        i32::try_from(self.pid())
            .ok()
            .and_then(Pid::from_raw)
            .ok_or_else(|| self.failed("pid", io::ErrorKind::InvalidData.into()))
    }

    fn late(&self, what: String, deadline: Duration) -> ProcessError {
        ProcessError::Late {
            pid: self.pid(),
            what,
            deadline,
        }
    }

    fn failed(&self, call: &'static str, source: io::Error) -> ProcessError {
        ProcessError::Call {
            call,
            pid: self.pid(),
            source,
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only where it has been waited for already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until one of them is readable, or closed; false where the time is up first.
fn wait_readable(fds: &mut [PollFd<'_>], end: Instant) -> io::Result<bool> {
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(fds, Some(&timeout)) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}
