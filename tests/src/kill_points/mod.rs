//! A daemon stopped at the very call that changes something, and whatever shall happen there.
//!
//! The daemon has no switch for it: it runs as it always does and is traced with ptrace(2), every
//! system call of every thread. An operation makes a few hundred of them, so that this costs some
//! milliseconds. A seccomp filter would let only the calls of interest stop, and would have to be
//! there before the daemon starts, without which it would run otherwise than it does for its users.
//!
//! Which calls count is for [`calls`] to say: all but those that are known to change nothing outside
//! the daemon. What a later version does besides is covered without anybody adding it.

mod calls;
mod denial;
mod tracer;

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
};

use anyhow::{Context, Result, anyhow};
use reuseport_daemon::lab::daemon::Daemon;

pub use self::denial::Denial;
use self::tracer::{Aim, Tracer};

/// A place in the course of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// Which effect, counted from 0.
    pub effect: usize,
    /// On which side of it.
    pub moment: Moment,
}

/// The two sides of an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The call has been made and has done nothing yet.
    Before,
    /// The call has done what it does, and has not returned.
    After,
}

/// What a trace has shown.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The effects, in their order, up to the point if it was reached; for a [`Denial`], all calls that
    /// take something.
    pub effects: Vec<String>,
    /// Whether the point was reached.
    pub struck: bool,
    /// What calls that were denied have failed with.
    pub shortages: BTreeSet<i32>,
}

/// A daemon that is being traced.
#[derive(Debug)]
pub struct Trace {
    over: Arc<AtomicBool>,
    thread: thread::JoinHandle<Result<Seen>>,
}

/// What is done at a point. True where the daemon shall not go on.
pub type Strike = Box<dyn FnOnce() -> Result<bool> + Send>;

impl Trace {
    /// Traces a daemon from now on. At the point, `strike` is called while the thread that came there
    /// stands.
    ///
    /// # Errors
    ///
    /// Where it cannot be traced.
    pub fn begin(daemon: &Daemon, at: Option<(Point, Strike)>) -> Result<Self> {
        let aim = at.map_or(Aim::Nothing, |(point, strike)| Aim::Strike(point, strike));
        Self::start(daemon, aim)
    }

    /// Traces a daemon that does not get what it asks the kernel for.
    ///
    /// # Errors
    ///
    /// As [`Trace::begin`].
    pub fn deny(daemon: &Daemon, denial: Denial) -> Result<Self> {
        Self::start(daemon, Aim::Deny(denial))
    }

    fn start(daemon: &Daemon, aim: Aim) -> Result<Self> {
        let over = Arc::new(AtomicBool::new(false));
        let pid = daemon.pid();
        let (ready, begun) = mpsc::channel();
        let thread = {
            let over = Arc::clone(&over);
            // A tracer is a thread, and its tracees go on when it ends.
            thread::Builder::new()
                .name("tracer".to_owned())
                .spawn(move || Tracer::seize(pid, aim)?.run(&ready, &over))?
        };
        if begun.recv().is_ok() {
            return Ok(Self { over, thread });
        }
        join(thread)?;
        Err(anyhow!("the daemon ended before it was traced"))
    }

    /// Ends the trace, after the operation. `poke` makes the daemon do anything at all, so that the
    /// tracer, which waits for a call, hears of it.
    ///
    /// # Errors
    ///
    /// Where something could not be seen, or what was to be done at the point has failed.
    pub fn end(self, poke: impl FnOnce()) -> Result<Seen> {
        self.over.store(true, Ordering::SeqCst);
        if !self.thread.is_finished() {
            poke();
        }
        join(self.thread)
    }
}

fn join(thread: thread::JoinHandle<Result<Seen>>) -> Result<Seen> {
    let seen = thread.join().map_err(|_| anyhow!("the tracer panicked"))?;
    seen.context("trace the daemon")
}
