//! The tracer's loop (ptrace(2)).

use std::{
    collections::HashSet,
    fs,
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc::Sender,
    },
};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    sys::{
        ptrace::{self, Options},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

use super::{Moment, Point, Seen, Strike, calls::Call};

/// A traced process.
pub(super) struct Tracer {
    process: Pid,
    at: Option<(Point, Strike)>,
    /// Threads that have not stood still yet, so that their calls are not seen.
    unseen: HashSet<Pid>,
    /// Threads within a call.
    inside: HashSet<Pid>,
    /// The thread that makes the call after which something is to be done.
    last: Option<Pid>,
    seen: Seen,
}

/// Whether there is more to see.
#[derive(PartialEq, Eq)]
enum Next {
    GoOn,
    Enough,
}

impl Tracer {
    /// Takes hold of every thread of a process.
    pub(super) fn seize(pid: u32, at: Option<(Point, Strike)>) -> Result<Self> {
        let process = Pid::from_raw(i32::try_from(pid)?);
        let mut tracer = Self {
            process,
            at,
            unseen: HashSet::new(),
            inside: HashSet::new(),
            last: None,
            seen: Seen::default(),
        };
        while tracer.seize_more()? {}
        Ok(tracer)
    }

    /// Whether there were threads that it had not taken hold of. Those that start afterwards come by
    /// themselves.
    fn seize_more(&mut self) -> Result<bool> {
        let mut more = false;
        for thread in fs::read_dir(format!("/proc/{}/task", self.process))? {
            let name = thread?.file_name();
            let thread = Pid::from_raw(name.to_str().context("a thread")?.parse()?);
            if self.unseen.contains(&thread) {
                continue;
            }
            let options = Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACECLONE;
            match ptrace::seize(thread, options) {
                Ok(()) => {
                    ptrace::interrupt(thread)?;
                    self.unseen.insert(thread);
                    more = true;
                }
                // It has ended, or a thread that is traced has started it.
                Err(Errno::ESRCH | Errno::EPERM) => {}
                Err(error) => return Err(error).context("PTRACE_SEIZE"),
            }
        }
        Ok(more)
    }

    /// Lets it run from call to call until it ends, is killed, or `over` is set.
    pub(super) fn run(mut self, ready: &Sender<()>, over: &AtomicBool) -> Result<Seen> {
        // Threads of this process that are not the tracer have children of their own.
        let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
        let mut told = false;
        loop {
            if self.unseen.is_empty() && !told {
                ready.send(())?;
                told = true;
            }
            let status = match waitpid(None, Some(flags)) {
                Ok(status) => status,
                Err(Errno::ECHILD) => return Ok(self.seen),
                Err(Errno::EINTR) => continue,
                Err(error) => return Err(error).context("waitpid"),
            };
            if over.load(Ordering::SeqCst) || self.take(status)? == Next::Enough {
                return Ok(self.seen);
            }
        }
    }

    fn take(&mut self, status: WaitStatus) -> Result<Next> {
        let mut signal = None;
        let thread = match status {
            WaitStatus::PtraceSyscall(thread) => {
                if self.inside.remove(&thread) {
                    if self.leaves(thread)? == Next::Enough {
                        return Ok(Next::Enough);
                    }
                } else if self.enters(thread)? == Next::Enough {
                    return Ok(Next::Enough);
                }
                thread
            }
            WaitStatus::PtraceEvent(thread, _, _) => thread,
            WaitStatus::Stopped(thread, sent) => {
                signal = Some(sent);
                thread
            }
            WaitStatus::Exited(thread, _) | WaitStatus::Signaled(thread, _, _) => {
                self.unseen.remove(&thread);
                self.inside.remove(&thread);
                return Ok(Next::GoOn);
            }
            WaitStatus::Continued(_) | WaitStatus::StillAlive => return Ok(Next::GoOn),
        };
        self.unseen.remove(&thread);
        match ptrace::syscall(thread, signal) {
            // Killed meanwhile.
            Ok(()) | Err(Errno::ESRCH) => Ok(Next::GoOn),
            Err(error) => Err(error).context("PTRACE_SYSCALL"),
        }
    }

    fn enters(&mut self, thread: Pid) -> Result<Next> {
        // None where the thread was in the middle of a call when it was taken hold of, and leaves it.
        let Some(call) = Call::entered(self.process, thread)? else {
            return Ok(Next::GoOn);
        };
        self.inside.insert(thread);
        let Some(effect) = call.effect()? else {
            return Ok(Next::GoOn);
        };
        let here = self.seen.effects.len();
        self.seen.effects.push(effect);
        match self.at.as_ref().map(|(point, _)| *point) {
            Some(point) if point.effect == here => match point.moment {
                Moment::Before => self.strike(),
                Moment::After => {
                    self.last = Some(thread);
                    Ok(Next::GoOn)
                }
            },
            Some(_) | None => Ok(Next::GoOn),
        }
    }

    fn leaves(&mut self, thread: Pid) -> Result<Next> {
        if self.last == Some(thread) {
            self.last = None;
            return self.strike();
        }
        Ok(Next::GoOn)
    }

    fn strike(&mut self) -> Result<Next> {
        let Some((_, strike)) = self.at.take() else {
            return Ok(Next::GoOn);
        };
        self.seen.struck = true;
        Ok(if strike()? { Next::Enough } else { Next::GoOn })
    }
}
