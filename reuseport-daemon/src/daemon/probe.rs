//! A reuseport group of our own, steered as a service's is: one connection is sent to a listener
//! and counted, and another one is moved when that listener closes. In a network namespace of its
//! own where that is permitted, and otherwise on loopback, on a port that nobody knows.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use reuseport_common::{Cause, Outcome};
use rustix::{
    event::{
        PollFd, PollFlags, Timespec,
        epoll::{self, CreateFlags, EventData, EventFlags},
        poll,
    },
    io::Errno,
};
use socket2::{Domain, Socket, Type};
use thiserror::Error;

use crate::{
    chain::chain,
    domain::{Slot, SocketCookie, Waker},
    steering::{Loader, ProgramKind, SteeringError, Trial},
    sys::{
        interface::{Interface, InterfaceError},
        netns::{Netns, NetnsError},
        sock_diag::{SockDiag, SockDiagError},
        socket::{self, SocketError, SocketFacts},
    },
};

/// On loopback a handshake takes microseconds; this is for a machine that is very busy.
const PATIENCE: Duration = Duration::from_secs(2);
const PATIENCE_POLL: Timespec = Timespec {
    tv_sec: PATIENCE.as_secs().cast_signed(),
    tv_nsec: 0,
};
const AT_ONCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

const STAYS: Slot = Slot(1);
const CLOSES: Slot = Slot(2);

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GroupTrial {
    /// Why there was no network namespace for it, if there was none.
    pub(super) no_namespace: Option<String>,
    /// Whether the kernel's list of sockets has our listeners.
    pub(super) listed: Result<bool, String>,
    /// Nothing where there was no program.
    pub(super) steered: Option<Result<Steered, String>>,
    /// What became of the queue of a listener that closed; nothing where there was no program, or
    /// where it does not move any.
    pub(super) moved: Option<Result<Moved, String>>,
}

impl GroupTrial {
    fn is_conclusive(&self) -> bool {
        let steered = matches!(self.steered, Some(Ok(_)));
        steered && !matches!(self.moved, Some(Err(_)))
    }
}

/// What became of a connection that the program sent somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Steered {
    /// It arrived there and was counted, once.
    Exactly,
    /// It arrived there; this is how often it was counted.
    Miscounted(u64),
    /// It arrived elsewhere or nowhere.
    Astray,
}

/// What became of a connection in the queue of a listener that closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moved {
    /// The other listener has it and was told.
    Noticed,
    /// The other listener has it and was not told: whoever waits there sleeps on.
    Silently,
    /// It is gone.
    Lost,
}

/// The trial of a daemon's start. What it finds is the kernel's way and does not change, so that it
/// is not made again, unless something else was in its way.
#[derive(Clone, Debug)]
pub(super) struct Probe {
    loader: Loader,
    found: Arc<Mutex<Option<GroupTrial>>>,
}

impl Probe {
    /// One that has not been made.
    pub(super) fn new(loader: Loader) -> Self {
        Self {
            loader,
            found: Arc::default(),
        }
    }

    /// What was found. Whoever asks first makes the trial, which takes milliseconds.
    pub(super) fn found(&self) -> GroupTrial {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = &*found {
            return found.clone();
        }
        let made = examine(Trial::load(&self.loader).ok());
        if made.is_conclusive() {
            *found = Some(made.clone());
        }
        made
    }

    /// Who wakes acceptors to whom connections were moved.
    pub(super) fn waker(&self) -> Waker {
        match self.found().moved {
            Some(Ok(Moved::Silently)) => Waker::Daemon,
            Some(Ok(Moved::Noticed | Moved::Lost) | Err(_)) | None => Waker::Kernel,
        }
    }
}

#[derive(Debug, Error)]
enum TrialError {
    #[error("{0} failed")]
    Call(&'static str, #[source] io::Error),
    #[error(transparent)]
    Steering(#[from] SteeringError),
    #[error(transparent)]
    Socket(#[from] SocketError),
    #[error(transparent)]
    SockDiag(#[from] SockDiagError),
    #[error("a listener is no TCP socket")]
    NoTcp,
}

#[derive(Debug, Error)]
enum NamespaceError {
    #[error(transparent)]
    Netns(#[from] NetnsError),
    #[error(transparent)]
    Interface(#[from] InterfaceError),
}

/// Tries it, with a program if there is one. All that is made is gone when this returns.
fn examine(mut trial: Option<Trial>) -> GroupTrial {
    let mut examine = || in_place(trial.as_mut());
    let examined = namespace().and_then(|netns| Ok(netns.enter(&mut examine)?));
    examined.unwrap_or_else(|error| GroupTrial {
        no_namespace: Some(chain(&error)),
        ..examine()
    })
}

fn namespace() -> Result<Netns, NamespaceError> {
    let netns = Netns::create()?;
    netns.enter(|| Interface::named("lo")?.bring_up())??;
    Ok(netns)
}

/// In the calling thread's network namespace.
fn in_place(trial: Option<&mut Trial>) -> GroupTrial {
    let told = |error: TrialError| chain(&error);
    let mut tried = GroupTrial {
        no_namespace: None,
        listed: Ok(false),
        steered: None,
        moved: None,
    };
    let (stays, closes) = match listeners() {
        Ok(listeners) => listeners,
        Err(error) => {
            tried.listed = Err(told(error));
            return tried;
        }
    };
    tried.listed = are_listed(&[&stays, &closes]).map_err(told);
    let Some(trial) = trial else {
        return tried;
    };
    let steered = steer(trial, &stays, &closes).map_err(told);
    if steered.is_ok() && trial.kind() == ProgramKind::SelectOrMigrate {
        tried.moved = Some(move_queue(trial, &stays, closes).map_err(told));
    }
    tried.steered = Some(steered);
    tried
}

/// Two listeners of one group.
fn listeners() -> Result<(TcpListener, TcpListener), TrialError> {
    let first = listener(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let address = first.local_addr().map_err(call("getsockname"))?;
    Ok((first, listener(address)?))
}

fn listener(address: SocketAddr) -> Result<TcpListener, TrialError> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).map_err(call("socket"))?;
    socket.set_reuse_port(true).map_err(call("SO_REUSEPORT"))?;
    socket.set_nonblocking(true).map_err(call("O_NONBLOCK"))?;
    socket.bind(&address.into()).map_err(call("bind"))?;
    socket.listen(16).map_err(call("listen"))?;
    Ok(socket.into())
}

fn are_listed(listeners: &[&TcpListener]) -> Result<bool, TrialError> {
    let diag = SockDiag::open()?;
    for listener in listeners {
        let port = listener.local_addr().map_err(call("getsockname"))?.port();
        let cookie = cookie(listener)?;
        if !diag
            .listeners(Some(port))?
            .iter()
            .any(|it| it.cookie == cookie)
        {
            return Ok(false);
        }
    }
    Ok(true)
}

fn cookie(listener: &TcpListener) -> Result<SocketCookie, TrialError> {
    match socket::facts(listener.as_fd())? {
        SocketFacts::Tcp(facts) => Ok(facts.cookie),
        SocketFacts::Other(_) | SocketFacts::NotASocket => Err(TrialError::NoTcp),
    }
}

/// Steers the group to the listener that is to be closed later, and connects.
fn steer(
    trial: &mut Trial,
    stays: &TcpListener,
    closes: &TcpListener,
) -> Result<Steered, TrialError> {
    trial.insert(STAYS, stays.as_fd())?;
    trial.insert(CLOSES, closes.as_fd())?;
    trial.steer_to(CLOSES)?;
    trial.attach(stays.as_fd())?;
    let _client = connect(closes)?;
    if !has_connection(closes)? {
        return Ok(Steered::Astray);
    }
    closes.accept().map_err(call("accept"))?;
    Ok(match trial.runs()?.of(Outcome::Selected, Cause::New) {
        1 => Steered::Exactly,
        times => Steered::Miscounted(times),
    })
}

/// Lets a connection wait at one listener, steers the group to the other one, and closes the first.
///
/// epoll lists a listener only once the kernel has woken its waiters, and not because a connection
/// is there. So it tells without anybody sleeping whether a sleeper would have been woken, which
/// kernels from 5.14 on forgot for connections that they moved (CVE-2026-46015).
fn move_queue(
    trial: &mut Trial,
    stays: &TcpListener,
    closes: TcpListener,
) -> Result<Moved, TrialError> {
    let _client = connect(&closes)?;
    if !has_connection(&closes)? {
        return Ok(Moved::Lost);
    }
    let waiting = epoll::create(CreateFlags::CLOEXEC).map_err(errno("epoll_create1"))?;
    epoll::add(&waiting, stays, EventData::new_u64(0), EventFlags::IN)
        .map_err(errno("epoll_ctl"))?;
    trial.steer_to(STAYS)?;
    drop(closes);
    let mut events = Vec::with_capacity(1);
    epoll::wait(
        &waiting,
        rustix::buffer::spare_capacity(&mut events),
        Some(&AT_ONCE),
    )
    .map_err(errno("epoll_wait"))?;
    match stays.accept() {
        Ok(_) if events.is_empty() => Ok(Moved::Silently),
        Ok(_) => Ok(Moved::Noticed),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Moved::Lost),
        Err(error) => Err(TrialError::Call("accept", error)),
    }
}

fn connect(to: &TcpListener) -> Result<TcpStream, TrialError> {
    let address = to.local_addr().map_err(call("getsockname"))?;
    TcpStream::connect_timeout(&address, PATIENCE).map_err(call("connect"))
}

/// Waits until a connection is in the listener's queue.
fn has_connection(listener: &TcpListener) -> Result<bool, TrialError> {
    let mut fds = [PollFd::new(listener, PollFlags::IN)];
    let ready = poll(&mut fds, Some(&PATIENCE_POLL)).map_err(errno("poll"))?;
    Ok(ready > 0)
}

fn call(name: &'static str) -> impl Fn(io::Error) -> TrialError {
    move |source| TrialError::Call(name, source)
}

fn errno(name: &'static str) -> impl Fn(Errno) -> TrialError {
    move |error| TrialError::Call(name, error.into())
}
