//! A service manager in miniature: it hears when a daemon is ready, keeps descriptors for it, and gives
//! them to the next one, as systemd does (`sd_notify(3)`, `sd_listen_fds(3)`).

use std::{
    io::{self, Read},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixDatagram,
    },
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use rustix::fs::fstat;

use crate::sys::{inherit, unix_socket};

/// What ends the manager; no daemon says so.
const END: &str = "END=1";

/// What starts the program under the pid that it is told: `LISTEN_PID` has to be its own.
const SCRIPT: &str = r#"export LISTEN_PID=$$; exec "$0" "$@""#;

/// The service manager of one daemon, and of those that follow it.
#[derive(Debug)]
pub struct ServiceManager {
    address: PathBuf,
    heard: Arc<Heard>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Heard {
    state: Mutex<State>,
    ready: Condvar,
}

#[derive(Debug, Default)]
struct State {
    ready: bool,
    /// How many descriptors it keeps, `FileDescriptorStoreMax=`.
    room: usize,
    kept: Vec<(String, OwnedFd)>,
}

impl ServiceManager {
    /// One that hears what is sent to a socket in `directory`, and keeps no descriptors.
    ///
    /// # Errors
    ///
    /// Where the socket or the thread cannot be had.
    pub fn start(directory: &Path) -> io::Result<Self> {
        let address = directory.join("notify");
        let socket = UnixDatagram::bind(&address)?;
        let heard = Arc::<Heard>::default();
        let listener = Arc::clone(&heard);
        let thread = thread::Builder::new()
            .name("manager".to_owned())
            .spawn(move || while let Ok(true) = listener.hear(&socket) {})?;
        Ok(Self {
            address,
            heard,
            thread: Some(thread),
        })
    }

    /// Keeps so many descriptors from now on.
    pub fn keep_at_most(&self, room: usize) {
        self.heard.state().room = room;
    }

    /// A command that starts `program` and passes all that is kept, once everything has been heard
    /// that the daemon before it said.
    ///
    /// # Errors
    ///
    /// Where a descriptor cannot be duplicated.
    pub fn command(&self, program: &Path) -> io::Result<Command> {
        self.hear_all()?;
        let mut state = self.heard.state();
        state.ready = false;
        let (mut names, mut fds) = (Vec::new(), Vec::new());
        for (name, fd) in &state.kept {
            names.push(name.as_str());
            fds.push(fd.try_clone()?);
        }
        let mut command = if fds.is_empty() {
            Command::new(program)
        } else {
            let mut command = Command::new("sh");
            command.arg("-c").arg(SCRIPT).arg(program);
            command.env("LISTEN_FDS", fds.len().to_string());
            command.env("LISTEN_FDNAMES", names.join(":"));
            inherit::pass(&mut command, fds);
            command
        };
        command.env("NOTIFY_SOCKET", &self.address);
        Ok(command)
    }

    /// Waits until the daemon says that it is ready.
    ///
    /// # Errors
    ///
    /// `TimedOut`.
    pub fn wait_until_ready(&self, deadline: Duration) -> io::Result<()> {
        let (state, waited) = self
            .heard
            .ready
            .wait_timeout_while(self.heard.state(), deadline, |it| !it.ready)
            .unwrap_or_else(PoisonError::into_inner);
        drop(state);
        if waited.timed_out() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }

    /// What is kept, by name, once everything has been heard.
    ///
    /// # Errors
    ///
    /// Where a descriptor cannot be duplicated.
    pub fn kept(&self) -> io::Result<Vec<(String, OwnedFd)>> {
        self.hear_all()?;
        let state = self.heard.state();
        let kept = state.kept.iter();
        kept.map(|(name, fd)| Ok((name.clone(), fd.try_clone()?)))
            .collect()
    }

    /// Keeps something that no daemon has asked for.
    pub fn keep(&self, name: &str, fd: OwnedFd) {
        self.heard.state().kept.push((name.to_owned(), fd));
    }

    /// Waits until everything has been heard that has been said, by a barrier of its own.
    fn hear_all(&self) -> io::Result<()> {
        let (mut ours, theirs) = io::pipe()?;
        let socket = UnixDatagram::unbound()?;
        socket.connect(&self.address)?;
        unix_socket::send(&socket, b"BARRIER=1", &[theirs.as_fd()])?;
        drop(theirs);
        // Nobody writes: it ends when the other end is closed.
        ours.read_to_end(&mut Vec::new())?;
        Ok(())
    }
}

impl Drop for ServiceManager {
    fn drop(&mut self) {
        let told = UnixDatagram::unbound().and_then(|it| it.send_to(END.as_bytes(), &self.address));
        if told.is_ok()
            && let Some(thread) = self.thread.take()
        {
            // A panic of its own has been seen on standard error.
            let _ = thread.join();
        }
    }
}

impl Heard {
    /// Hears one message; whether there is to be another one.
    fn hear(&self, socket: &UnixDatagram) -> io::Result<bool> {
        let mut buffer = [0; 4096];
        let received = unix_socket::receive(socket, &mut buffer)?;
        let text = String::from_utf8_lossy(&buffer[..received.bytes]);
        let says = |line: &str| text.lines().any(|it| it == line);
        let name = text.lines().find_map(|it| it.strip_prefix("FDNAME="));
        let name = name.unwrap_or("stored");
        let mut state = self.state();
        if says("FDSTOREREMOVE=1") {
            state.kept.retain(|(it, _)| it != name);
        } else if says("FDSTORE=1") {
            for fd in received.fds {
                let there = state.kept.iter().any(|(_, it)| same(it, &fd));
                if !there && state.kept.len() < state.room {
                    state.kept.push((name.to_owned(), fd));
                }
            }
        }
        if says("READY=1") {
            state.ready = true;
            self.ready.notify_all();
        }
        // What came with a barrier is closed here.
        Ok(!says(END))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether two descriptors are of one socket or pipe.
fn same(one: &OwnedFd, other: &OwnedFd) -> bool {
    let inode = |fd: &OwnedFd| fstat(fd).map(|it| (it.st_dev, it.st_ino)).ok();
    inode(one).is_some() && inode(one) == inode(other)
}
