//! Accepting from a listener that is another process's, without ever waiting for a connection.
//!
//! Whether `accept` waits is up to the open file description (`O_NONBLOCK`) and the socket
//! (`SO_RCVTIMEO`), which a duplicate shares with the listener's owner: neither may change under a
//! server, and `accept4` has no flag of its own for it. To look first does not suffice either, since
//! the owner may take the connection in between. So an `accept` that turns out to wait is
//! interrupted by a signal, which loses nothing: it waits only while the queue is empty, and looks
//! once more before it heeds the signal (`inet_csk_wait_for_connect`,
//! <https://elixir.bootlin.com/linux/v6.18/source/net/ipv4/inet_connection_sock.c>).

#![expect(
    unsafe_code,
    reason = "neither rustix nor nix sends a real-time signal to a thread"
)]

use std::{
    io,
    marker::PhantomData,
    mem,
    os::fd::{BorrowedFd, OwnedFd},
    ptr,
    sync::{
        OnceLock,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{SocketFlags, accept_with},
};

/// How often an `accept` that waits is interrupted.
const TICK: Duration = Duration::from_millis(1);

/// The right to accept in a thread whose system calls are interrupted. It cannot leave that thread:
/// elsewhere `accept` might wait for ever.
#[derive(Debug)]
pub struct Acceptor(PhantomData<*const ()>);

impl Acceptor {
    /// Does `work` in a thread of its own, and waits for it. A system call of that thread that
    /// waits ends with EINTR within a millisecond or so.
    ///
    /// # Errors
    ///
    /// Where the thread cannot be started, or panics.
    pub fn run<T: Send>(work: impl FnOnce(&Self) -> T + Send) -> io::Result<T> {
        let signal = tick_signal()?;
        let (tell, told) = mpsc::sync_channel(1);
        thread::scope(|scope| {
            let accepting = thread::Builder::new()
                .name("accepting".to_owned())
                .spawn_scoped(scope, move || {
                    unblock(signal);
                    // SAFETY: it takes nothing and cannot fail.
                    let this = unsafe { libc::pthread_self() };
                    // It is received by whoever waits for this thread.
                    let _ = tell.send(this);
                    let done = work(&Self(PhantomData));
                    // What ends the interruptions, as does a panic.
                    drop(tell);
                    done
                })?;
            let mut thread = None;
            loop {
                match told.recv_timeout(TICK) {
                    Ok(this) => thread = Some(this),
                    Err(RecvTimeoutError::Timeout) => {
                        if let Some(thread) = thread {
                            // SAFETY: the thread has not been joined yet, so that its id is its own
                            // still, whether or not it has ended.
                            unsafe { libc::pthread_kill(thread, signal) };
                        }
                    }
                    Err(RecvTimeoutError::Disconnected) => break,
                }
            }
            let panicked = |_| io::Error::other("the accepting thread panicked");
            accepting.join().map_err(panicked)
        })
    }

    /// Accepts one connection, close-on-exec and blocking; none where none waits, or the socket
    /// listens no more.
    ///
    /// # Errors
    ///
    /// Where there is no descriptor or no memory for it, or a security module says no: it waits on.
    pub fn accept(&self, listener: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
        // Only to spare a listener that blocks the wait; the owner may be faster all the same.
        if !is_readable(listener) {
            return Ok(None);
        }
        match accept_with(listener, SocketFlags::CLOEXEC) {
            Ok(connection) => Ok(Some(connection)),
            // EINVAL is a listener that has been shut down.
            Err(Errno::AGAIN | Errno::INTR | Errno::INVAL) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// A connection waits, or the listener has an error to tell.
fn is_readable(listener: BorrowedFd<'_>) -> bool {
    const AT_ONCE: Timespec = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // A poll that does not wait is neither interrupted nor short of memory.
    let mut fds = [PollFd::new(&listener, PollFlags::IN)];
    poll(&mut fds, Some(&AT_ONCE)).is_ok_and(|ready| ready > 0)
}

/// The signal that interrupts: the last real-time one, which does nothing else here. A standard
/// signal would mean something to somebody.
fn tick_signal() -> io::Result<libc::c_int> {
    static INSTALLED: OnceLock<Result<libc::c_int, i32>> = OnceLock::new();
    let installed = INSTALLED.get_or_init(|| {
        let signal = libc::SIGRTMAX();
        install(signal).map(|()| signal)
    });
    installed.map_err(io::Error::from_raw_os_error)
}

/// Lets a signal end whatever waits, and do nothing.
fn install(signal: libc::c_int) -> Result<(), i32> {
    extern "C" fn nothing(_: libc::c_int) {}
    // SAFETY: a `sigaction` is plain data, for which zeroes are an empty mask and no flags; without
    // SA_RESTART system calls are not begun anew.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as libc::sighandler_t;
    // SAFETY: `action` outlives the call, and its handler does nothing, which any thread may do at
    // any time.
    let status = unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) };
    if status == 0 {
        Ok(())
    } else {
        let error = io::Error::last_os_error();
        Err(error.raw_os_error().unwrap_or(libc::EINVAL))
    }
}

/// Lets a signal through to this thread, whatever the process was started with.
fn unblock(signal: libc::c_int) {
    // SAFETY: a `sigset_t` is plain data, for which zeroes are an empty set.
    let mut set: libc::sigset_t = unsafe { mem::zeroed() };
    // SAFETY: `set` is live, and `signal` is one.
    unsafe { libc::sigaddset(&raw mut set, signal) };
    // SAFETY: `set` outlives the call, which changes this thread's mask alone.
    unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, ptr::null_mut()) };
}

#[cfg(test)]
mod tests {
    use std::{
        net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
        os::fd::AsFd,
        sync::atomic::{AtomicBool, AtomicUsize, Ordering},
        time::Instant,
    };

    use rustix::fs::{OFlags, fcntl_getfl};

    use super::*;

    /// What no call may take that does not wait. The machine may be busy.
    const SOON: Duration = Duration::from_secs(10);

    fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        let address = listener.local_addr().expect("an address");
        (listener, address)
    }

    fn accept(listener: &TcpListener) -> Option<OwnedFd> {
        let begun = Instant::now();
        let accepted = Acceptor::run(|acceptor| acceptor.accept(listener.as_fd()));
        assert!(begun.elapsed() < SOON);
        accepted.expect("a thread").expect("a descriptor")
    }

    #[test]
    fn an_empty_queue_is_not_waited_for() {
        let (listener, _) = listener();
        assert!(accept(&listener).is_none());
        listener.set_nonblocking(true).expect("O_NONBLOCK");
        assert!(accept(&listener).is_none());
    }

    #[test]
    fn a_connection_is_taken_and_the_listener_stays_as_it_was() {
        let (listener, address) = listener();
        for nonblocking in [false, true] {
            listener.set_nonblocking(nonblocking).expect("O_NONBLOCK");
            let before = fcntl_getfl(&listener).expect("flags");
            let client = TcpStream::connect(address).expect("connect");
            let accepted = TcpStream::from(accept(&listener).expect("a connection"));
            let peer = accepted.peer_addr().expect("a peer");
            assert_eq!(peer, client.local_addr().expect("an address"));
            let flags = rustix::io::fcntl_getfd(&accepted).expect("flags");
            assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
            let mode = fcntl_getfl(&accepted).expect("flags");
            assert!(!mode.contains(OFlags::NONBLOCK));
            assert_eq!(fcntl_getfl(&listener).expect("flags"), before);
            assert!(accept(&listener).is_none());
        }
    }

    #[test]
    fn a_listener_that_is_closed_for_everybody_has_nothing() {
        let (listener, _) = listener();
        crate::sys::socket::shutdown(listener.as_fd()).expect("shutdown");
        assert!(accept(&listener).is_none());
    }

    /// `accept` on a blocking listener with nothing in its queue is what a lost race comes to.
    #[test]
    fn an_accept_that_waits_is_interrupted() {
        let (listener, address) = listener();
        let begun = Instant::now();
        let interrupted = Acceptor::run(|_| accept_with(&listener, SocketFlags::CLOEXEC));
        let error = interrupted.expect("a thread").expect_err("nobody connects");
        assert_eq!(error, Errno::INTR);
        assert!(begun.elapsed() < SOON);
        // The owner's own accept is another thread's, and is not.
        let owner = thread::spawn(move || listener.accept().map(|(_, peer)| peer));
        Acceptor::run(|_| thread::sleep(TICK * 20)).expect("a thread");
        let client = TcpStream::connect(address).expect("connect");
        let accepted = owner.join().expect("no panic").expect("a connection");
        assert_eq!(accepted, client.local_addr().expect("an address"));
    }

    #[test]
    fn every_connection_is_somebodys_where_an_owner_accepts_too() {
        const CONNECTIONS: usize = 500;
        const CLIENTS: usize = 4;
        let (listener, address) = listener();
        let (ours, theirs) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let over = AtomicBool::new(false);
        let all = || ours.load(Ordering::Relaxed) + theirs.load(Ordering::Relaxed);
        let all = thread::scope(|scope| {
            let owner = scope.spawn(|| {
                while let Ok((connection, _)) = listener.accept() {
                    if over.load(Ordering::Relaxed) {
                        return;
                    }
                    theirs.fetch_add(1, Ordering::Relaxed);
                    drop(connection);
                }
            });
            for _ in 0..CLIENTS {
                scope.spawn(|| {
                    for _ in 0..CONNECTIONS / CLIENTS {
                        drop(TcpStream::connect(address).expect("connect"));
                    }
                });
            }
            for _ in 0..2 {
                scope.spawn(|| {
                    let taken = Acceptor::run(|acceptor| {
                        while all() < CONNECTIONS && !over.load(Ordering::Relaxed) {
                            let taken = acceptor.accept(listener.as_fd()).expect("a descriptor");
                            ours.fetch_add(usize::from(taken.is_some()), Ordering::Relaxed);
                        }
                    });
                    taken.expect("a thread");
                });
            }
            let begun = Instant::now();
            while all() < CONNECTIONS && begun.elapsed() < SOON {
                thread::yield_now();
            }
            let all = all();
            over.store(true, Ordering::Relaxed);
            // The others may take one more each, which would have ended the owner's wait.
            while !owner.is_finished() {
                drop(TcpStream::connect(address).expect("connect"));
            }
            all
        });
        assert_eq!(all, CONNECTIONS);
    }
}
