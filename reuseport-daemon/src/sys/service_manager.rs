//! The service manager, such as systemd: what it is told, and descriptors that it keeps for the next
//! process of this service (`sd_notify(3)`).
//!
//! A message is a datagram that it reads when it gets to it, and nobody says what came of it. So a
//! descriptor is followed by a probe, which is the end of a pipe: the manager closes what it does not
//! keep, and the other end shows that. A barrier, which it closes when it has read it, tells when to
//! look.

use std::{
    ffi::OsStr,
    io::{self, PipeReader},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::{ffi::OsStrExt, net::UnixDatagram},
    },
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::SocketAddrUnix,
};

use super::unix_socket;

/// How long the manager may take to read what it is told. It is a moment, unless it reads its own
/// configuration anew.
const PATIENCE: Duration = Duration::from_secs(1);

/// The service manager that started this process.
#[derive(Debug)]
pub struct ServiceManager {
    /// Not connected, since the manager may bind its own anew, and there from the start, so that what
    /// is no longer to be kept can be said when there are no descriptors left.
    socket: UnixDatagram,
    address: SocketAddrUnix,
    /// A barrier that it has not come to in time. Until it does, it is not waited for again.
    unanswered: Mutex<Option<PipeReader>>,
    probes: AtomicU64,
}

/// What has become of a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// It is kept.
    Kept,
    /// The manager has no room for it, or keeps nothing for this process. One that took the last
    /// place is said to be refused.
    Refused,
    /// The manager has not got to it in time, and may keep it when it does; or it has not got to
    /// something earlier, and has not been told.
    Unanswered,
}

impl ServiceManager {
    /// The manager that reads from that socket, as `NOTIFY_SOCKET` names it.
    ///
    /// # Errors
    ///
    /// Where it names no unix socket, or none can be made to talk to it.
    pub fn at(socket: &OsStr) -> io::Result<Self> {
        let address = match socket.as_bytes() {
            [b'@', name @ ..] => SocketAddrUnix::new_abstract_name(name)?,
            [b'/', ..] => SocketAddrUnix::new(socket.as_bytes())?,
            _ => return Err(io::ErrorKind::Unsupported.into()),
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Self {
            socket,
            address,
            unanswered: Mutex::default(),
            probes: AtomicU64::default(),
        })
    }

    /// Tells it something, such as `READY=1`.
    ///
    /// # Errors
    ///
    /// Where nobody reads the socket, or its queue stays full.
    pub fn tell(&self, message: &str) -> io::Result<()> {
        self.send(message, &[])
    }

    /// Lets it keep a duplicate of `fd`, under a name, until that is removed.
    ///
    /// It is not to look at the descriptor (`FDPOLL=0`): what is kept and for how long is up to this
    /// process.
    ///
    /// # Errors
    ///
    /// Where it cannot be told.
    pub fn store(&self, name: &str, fd: BorrowedFd<'_>) -> io::Result<Stored> {
        if self.is_silent()? {
            return Ok(Stored::Unanswered);
        }
        self.send(&store(name), &[fd])?;
        self.has_room()
    }

    /// Whether it would keep one more descriptor. If it does, it has kept all that came before.
    ///
    /// # Errors
    ///
    /// Where it cannot be told.
    pub fn has_room(&self) -> io::Result<Stored> {
        let (ours, theirs) = io::pipe()?;
        let probe = format!("probe.{}", self.probes.fetch_add(1, Ordering::Relaxed));
        self.send(&store(&probe), &[theirs.as_fd()])?;
        drop(theirs);
        let stored = self.barrier().and_then(|answered| {
            Ok(if !answered {
                Stored::Unanswered
            } else if is_closed(&ours, Duration::ZERO)? {
                Stored::Refused
            } else {
                Stored::Kept
            })
        });
        // Whatever came of it: it takes room.
        self.remove(&probe)?;
        stored
    }

    /// Lets it keep no longer what it keeps under a name. It does so when it gets to it.
    ///
    /// # Errors
    ///
    /// Where it cannot be told.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        self.send(&format!("FDSTOREREMOVE=1\nFDNAME={name}\n"), &[])
    }

    /// Waits until it has read all that it was told, for a second. Tells whether it has.
    ///
    /// # Errors
    ///
    /// Where it cannot be told.
    pub fn barrier(&self) -> io::Result<bool> {
        if self.is_silent()? {
            return Ok(false);
        }
        let (ours, theirs) = io::pipe()?;
        self.send("BARRIER=1", &[theirs.as_fd()])?;
        drop(theirs);
        let answered = is_closed(&ours, PATIENCE)?;
        if !answered {
            *self.unanswered() = Some(ours);
        }
        Ok(answered)
    }

    /// Whether there is a barrier that it has not come to yet.
    fn is_silent(&self) -> io::Result<bool> {
        let mut unanswered = self.unanswered();
        if let Some(earlier) = unanswered.as_ref()
            && !is_closed(earlier, Duration::ZERO)?
        {
            return Ok(true);
        }
        *unanswered = None;
        Ok(false)
    }

    fn unanswered(&self) -> MutexGuard<'_, Option<PipeReader>> {
        let unanswered = self.unanswered.lock();
        unanswered.unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, message: &str, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        unix_socket::send_to(&self.socket, &self.address, message.as_bytes(), fds)
    }
}

fn store(name: &str) -> String {
    format!("FDSTORE=1\nFDNAME={name}\nFDPOLL=0\n")
}

/// Whether nobody has the other end of a pipe any more, or not after a while.
fn is_closed(pipe: &PipeReader, within: Duration) -> io::Result<bool> {
    let end = Instant::now() + within;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(|_| io::ErrorKind::InvalidInput)?;
        // A hang-up is told of without being asked for.
        let mut fds = [PollFd::new(pipe, PollFlags::empty())];
        match poll(&mut fds, Some(&left)) {
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, thread};

    use super::*;

    /// A manager that keeps so many descriptors, and reads so many messages.
    fn manager(room: usize, messages: usize) -> (ServiceManager, thread::JoinHandle<usize>) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("bind");
        let reader = thread::spawn(move || {
            let mut kept = Vec::new();
            for _ in 0..messages {
                let mut buffer = [0; 256];
                let received = unix_socket::receive(&socket, &mut buffer).expect("receive");
                let text = String::from_utf8_lossy(&buffer[..received.bytes]).into_owned();
                let name = text.lines().find_map(|it| it.strip_prefix("FDNAME="));
                let name = name.unwrap_or_default().to_owned();
                if text.starts_with("FDSTOREREMOVE=1") {
                    kept.retain(|(it, _)| *it != name);
                } else if text.starts_with("FDSTORE=1") && kept.len() < room {
                    kept.extend(received.fds.into_iter().map(|fd| (name.clone(), fd)));
                }
            }
            drop(directory);
            kept.len()
        });
        let manager = ServiceManager::at(path.as_os_str()).expect("an address");
        (manager, reader)
    }

    /// One message for the descriptor, three for the probe behind it.
    const STORED: usize = 4;

    #[test]
    fn what_is_kept_is_known() {
        let (manager, reader) = manager(2, STORED);
        let file = File::open("/dev/null").expect("open");
        let stored = manager.store("a", file.as_fd()).expect("told");
        assert_eq!(stored, Stored::Kept);
        assert_eq!(reader.join().expect("no panic"), 1);
    }

    #[test]
    fn what_is_not_kept_is_known() {
        for room in [0, 1] {
            let (manager, reader) = manager(room, STORED);
            let file = File::open("/dev/null").expect("open");
            let stored = manager.store("a", file.as_fd()).expect("told");
            assert_eq!(stored, Stored::Refused);
            assert_eq!(reader.join().expect("no panic"), room);
        }
    }

    #[test]
    fn a_name_that_is_removed_is_kept_no_longer() {
        let (manager, reader) = manager(2, STORED + 1);
        let file = File::open("/dev/null").expect("open");
        manager.store("a", file.as_fd()).expect("told");
        manager.remove("a").expect("told");
        assert_eq!(reader.join().expect("no panic"), 0);
    }

    #[test]
    fn a_manager_that_reads_nothing_is_waited_for_once() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("bind");
        let manager = ServiceManager::at(path.as_os_str()).expect("an address");
        let began = Instant::now();
        assert!(!manager.barrier().expect("told"));
        assert!(!manager.barrier().expect("told"));
        let file = File::open("/dev/null").expect("open");
        let stored = manager.store("a", file.as_fd()).expect("told");
        assert_eq!(stored, Stored::Unanswered);
        assert!(began.elapsed() < PATIENCE * 2);
        // It is waited for again when it has come to the first one.
        let received = unix_socket::receive(&socket, &mut [0; 64]).expect("receive");
        drop(received);
        let reader = thread::spawn(move || unix_socket::receive(&socket, &mut [0; 64]).is_ok());
        assert!(manager.barrier().expect("told"));
        assert!(reader.join().expect("no panic"));
    }

    #[test]
    fn nobody_there_is_an_error() {
        let manager = ServiceManager::at(OsStr::new("/nonexistent/notify")).expect("an address");
        assert!(manager.tell("READY=1").is_err());
        assert!(ServiceManager::at(OsStr::new("vsock:2:1")).is_err());
    }
}
