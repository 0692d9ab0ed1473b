//! The lab's server: an ordinary TCP server with the habits that real ones have, which knows nothing
//! of reuseportd. It answers with its label, so that a client can tell who served it.
//!
//! It prints `ready` once everything listens, takes commands from its standard input, answers each
//! with `done`, and prints its [`Counts`] as JSON at its end.

mod acceptor;
mod connections;
mod counts;
mod inbox;
mod listener;
mod options;
mod receiver;
mod socket_option;
mod worker;

use std::{
    io::{self, BufRead, Write},
    thread,
};

use thiserror::Error;
use tokio::{
    runtime,
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

pub use self::{
    counts::Counts,
    options::{Acceptor, Options, Stop},
    socket_option::{SocketOption, SocketOptionError},
};
use self::{listener::ListenError, worker::Worker};
use crate::sys::limits;

/// The line that says that everything listens.
pub const READY: &str = "ready";

/// The line that says that a command has been carried out.
pub const DONE: &str = "done";

/// A server that cannot do its work.
#[derive(Debug, Error)]
pub enum ServerError {
    /// An address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The machinery around the sockets failed.
    #[error("{what}")]
    Setup {
        /// What could not be had.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// Standard output is gone.
    #[error("write to standard output")]
    Output(#[source] io::Error),
    /// Standard input said something unknown.
    #[error("unknown command {0:?}; there are more, close, drain-close and exit")]
    Command(String),
    /// A worker panicked.
    #[error("a worker panicked")]
    Panicked,
}

/// Runs a server until it is told to exit: by `exit` or the end of its standard input, or SIGTERM.
///
/// # Errors
///
/// Any [`ServerError`].
pub fn serve(options: &Options) -> Result<Counts, ServerError> {
    // Without it the server has fewer descriptors, and copes.
    let _ = limits::raise_descriptors();
    let runtime = runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(setup("start the signal handling"))?;
    // Before anybody can know that this process is there to be signalled.
    let mut terminate = {
        let _entered = runtime.enter();
        signal(SignalKind::terminate()).map_err(setup("catch SIGTERM"))?
    };
    let mut workers = start(options)?;
    if let (Some(service), Some(control), [worker, ..]) =
        (&options.receive, &options.control, &workers[..])
    {
        receiver::start(service, control, worker.inbox())?;
    }
    say(READY)?;
    let mut commands = commands()?;
    loop {
        let command = runtime.block_on(async {
            tokio::select! {
                command = commands.recv() => command,
                _ = terminate.recv() => None,
            }
        });
        let stop = match command.as_deref().map(str::trim) {
            Some("more") => {
                workers.append(&mut start(options)?);
                say(DONE)?;
                continue;
            }
            Some("close") => Stop::Close,
            Some("drain-close") => Stop::DrainClose,
            Some("exit") | None => break,
            Some(other) => return Err(ServerError::Command(other.to_owned())),
        };
        stop_listening(&mut workers, stop);
        say(DONE)?;
    }
    stop_listening(&mut workers, options.at_stop);
    let counts = finish(workers)?;
    let json = serde_json::to_string(&counts)
        .map_err(|source| ServerError::Output(io::Error::other(source)))?;
    say(&json)?;
    Ok(counts)
}

/// Opens every listener before any worker accepts: a server that cannot have all its addresses
/// serves none.
fn start(options: &Options) -> Result<Vec<Worker>, ServerError> {
    let listeners: Vec<_> = (0..options.workers)
        .map(|_| listener::open_all(options))
        .collect::<Result<_, _>>()?;
    listeners
        .into_iter()
        .map(|listeners| Worker::start(options, listeners))
        .collect()
}

fn stop_listening(workers: &mut [Worker], stop: Stop) {
    // All are told before any is waited for, as one event loop would do it.
    let pending: Vec<_> = workers
        .iter_mut()
        .map(|worker| worker.stop_listening(stop))
        .collect();
    for done in pending {
        // A worker that is gone has nothing left to close.
        let _ = done.recv();
    }
}

fn finish(workers: Vec<Worker>) -> Result<Counts, ServerError> {
    for worker in &workers {
        worker.ask_to_finish();
    }
    let mut total = Counts::default();
    for worker in workers {
        total += worker.join()?;
    }
    Ok(total)
}

/// The lines of standard input, read on a thread of its own, which ends with the process: nothing
/// can interrupt its read.
fn commands() -> Result<mpsc::Receiver<String>, ServerError> {
    let (sender, receiver) = mpsc::channel(1);
    thread::Builder::new()
        .name("commands".to_owned())
        .spawn(move || {
            for line in io::stdin().lock().lines().map_while(Result::ok) {
                if sender.blocking_send(line).is_err() {
                    return;
                }
            }
        })
        .map_err(setup("start the thread for commands"))?;
    Ok(receiver)
}

fn say(line: &str) -> Result<(), ServerError> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .map_err(ServerError::Output)
}

fn setup<E: Into<io::Error>>(what: &'static str) -> impl Fn(E) -> ServerError {
    move |source| ServerError::Setup {
        what,
        source: source.into(),
    }
}
