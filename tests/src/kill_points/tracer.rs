//! The tracer's loop (ptrace(2)).

use std::{
    collections::{HashMap, HashSet},
    fs, mem,
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

use super::{
    Moment, Point, Seen, Strike,
    calls::Call,
    denial::{Denial, fail, skip},
};

/// What a trace is for, besides to see.
pub(super) enum Aim {
    Nothing,
    Strike(Point, Strike),
    Deny(Denial),
}

/// A traced process.
pub(super) struct Tracer {
    process: Pid,
    aim: Aim,
    /// Threads that have not stood still yet, so that their calls are not seen.
    unseen: HashSet<Pid>,
    /// Threads within a call.
    inside: HashSet<Pid>,
    /// The thread that makes the call after which something is to be done.
    last: Option<Pid>,
    /// Threads within a call that is not made, and what it is to fail with.
    denied: HashMap<Pid, Errno>,
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
    pub(super) fn seize(pid: u32, aim: Aim) -> Result<Self> {
        let process = Pid::from_raw(i32::try_from(pid)?);
        let mut tracer = Self {
            process,
            aim,
            unseen: HashSet::new(),
            inside: HashSet::new(),
            last: None,
            denied: HashMap::new(),
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
            // A call that is not made must not return before it has been told what to say.
            let over = over.load(Ordering::SeqCst) && self.denied.is_empty();
            if over || self.take(status)? == Next::Enough {
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
                self.denied.remove(&thread);
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
        match &self.aim {
            Aim::Deny(denial) => {
                let denial = *denial;
                self.asks(thread, &call, denial)?;
                Ok(Next::GoOn)
            }
            Aim::Nothing | Aim::Strike(..) => self.changes(thread, &call),
        }
    }

    /// Whether the call is an effect, and the one to strike at.
    fn changes(&mut self, thread: Pid, call: &Call) -> Result<Next> {
        let Some(effect) = call.effect()? else {
            return Ok(Next::GoOn);
        };
        let here = self.seen.effects.len();
        self.seen.effects.push(effect);
        match &self.aim {
            Aim::Strike(point, _) if point.effect == here => match point.moment {
                Moment::Before => self.strike(),
                Moment::After => {
                    self.last = Some(thread);
                    Ok(Next::GoOn)
                }
            },
            Aim::Strike(..) | Aim::Nothing | Aim::Deny(_) => Ok(Next::GoOn),
        }
    }

    /// Whether the call takes something, and is not to get it.
    fn asks(&mut self, thread: Pid, call: &Call, denial: Denial) -> Result<()> {
        let Some((name, shortage)) = call.shortage()? else {
            return Ok(());
        };
        let here = self.seen.effects.len();
        self.seen.effects.push(name);
        let denied = denial.call..denial.call + denial.count;
        if denied.contains(&here) && skip(thread)? {
            self.seen.struck = true;
            self.seen.shortages.insert(shortage as i32);
            self.denied.insert(thread, shortage);
        }
        Ok(())
    }

    fn leaves(&mut self, thread: Pid) -> Result<Next> {
        if let Some(shortage) = self.denied.remove(&thread) {
            fail(thread, shortage)?;
        }
        if self.last == Some(thread) {
            self.last = None;
            return self.strike();
        }
        Ok(Next::GoOn)
    }

    fn strike(&mut self) -> Result<Next> {
        let Aim::Strike(_, strike) = mem::replace(&mut self.aim, Aim::Nothing) else {
            return Ok(Next::GoOn);
        };
        self.seen.struck = true;
        Ok(if strike()? { Next::Enough } else { Next::GoOn })
    }
}
