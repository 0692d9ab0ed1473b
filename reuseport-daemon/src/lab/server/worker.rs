//! A worker: one thread with an epoll, its listeners and its connections.

use std::{
    mem::MaybeUninit,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};

use super::{
    ServerError,
    acceptor::BlockingAcceptor,
    connections::{Connections, FIRST_TOKEN},
    counts::Counts,
    inbox::{Inbox, Message},
    listener::{Accepted, accept_one, is_listening},
    options::{Acceptor, Options, Stop},
    setup,
};

/// How long a server that is to end waits for connections to bring their request.
const FINISH_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a worker that has run out of descriptors waits before it tries again.
const NO_ROOM_PAUSE: Duration = Duration::from_millis(10);

/// Connections that a worker accepts before it looks at those it has: under a steady stream of new
/// ones it would never come to them.
const BATCH: usize = 16;

/// epoll data of the descriptor that wakes the worker; listeners have their place.
const WAKE_TOKEN: u64 = FIRST_TOKEN - 1;

/// A running worker.
#[derive(Debug)]
pub(super) struct Worker {
    inbox: Inbox,
    thread: thread::JoinHandle<Counts>,
    acceptors: Vec<BlockingAcceptor>,
}

impl Worker {
    pub(super) fn start(options: &Options, listeners: Vec<OwnedFd>) -> Result<Self, ServerError> {
        let (messages, received) = mpsc::channel();
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(setup("create an eventfd"))?;
        let inbox = Inbox::new(messages, wake);
        let (polled, blocking) = match options.acceptor {
            Acceptor::Level | Acceptor::Edge => (listeners, Vec::new()),
            Acceptor::Blocking => (Vec::new(), listeners),
        };
        let event_loop = EventLoop::new(options, &inbox, received, polled)?;
        let thread = thread::Builder::new()
            .name("worker".to_owned())
            .spawn(move || event_loop.run())
            .map_err(setup("start a worker"))?;
        let acceptors = blocking
            .into_iter()
            .map(|listener| BlockingAcceptor::start(listener, inbox.clone()))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            inbox,
            thread,
            acceptors,
        })
    }

    /// The way to it.
    pub(super) fn inbox(&self) -> Inbox {
        self.inbox.clone()
    }

    /// Tells the worker to stop listening; the receiver hears when it has.
    pub(super) fn stop_listening(&mut self, stop: Stop) -> mpsc::Receiver<()> {
        match stop {
            Stop::Close | Stop::DrainClose => {
                for acceptor in self.acceptors.drain(..) {
                    acceptor.stop(stop);
                }
            }
            // An `accept` that blocks cannot be told to stop without closing the listener. It
            // takes connections until the process ends, which this server does not wait for.
            Stop::Linger => {}
        }
        let (done, heard) = mpsc::channel();
        self.inbox.send(Message::StopListening(stop, done));
        heard
    }

    pub(super) fn ask_to_finish(&self) {
        self.inbox.send(Message::Finish);
    }

    pub(super) fn join(self) -> Result<Counts, ServerError> {
        self.thread.join().map_err(|_| ServerError::Panicked)
    }
}

struct EventLoop {
    edge: bool,
    epoll: OwnedFd,
    wake: Arc<OwnedFd>,
    received: mpsc::Receiver<Message>,
    /// A listener keeps its place, which is its epoll data.
    listeners: Vec<Option<OwnedFd>>,
    /// When to try all listeners again that epoll may have nothing more to say about: those that an
    /// edge-triggered worker has not emptied, and those that had to wait for a descriptor.
    retry: Option<Duration>,
    connections: Connections,
    counts: Counts,
    finish_by: Option<Instant>,
}

impl EventLoop {
    fn new(
        options: &Options,
        inbox: &Inbox,
        received: mpsc::Receiver<Message>,
        listeners: Vec<OwnedFd>,
    ) -> Result<Self, ServerError> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(setup("create an epoll"))?;
        let edge = options.acceptor == Acceptor::Edge;
        let interest = if edge {
            epoll::EventFlags::IN | epoll::EventFlags::ET
        } else {
            epoll::EventFlags::IN
        };
        let add = |fd: &OwnedFd, token, interest| {
            epoll::add(&epoll, fd, epoll::EventData::new_u64(token), interest)
                .map_err(setup("add to the epoll"))
        };
        add(inbox.wake(), WAKE_TOKEN, epoll::EventFlags::IN)?;
        for (place, listener) in listeners.iter().enumerate() {
            add(listener, place as u64, interest)?;
        }
        Ok(Self {
            edge,
            epoll,
            wake: Arc::clone(inbox.wake()),
            received,
            listeners: listeners.into_iter().map(Some).collect(),
            retry: None,
            connections: Connections::new(options.label),
            counts: Counts::default(),
            finish_by: None,
        })
    }

    fn run(mut self) -> Counts {
        let mut buffer = [MaybeUninit::uninit(); 128];
        while !self.finished() {
            let timeout = self.timeout();
            // Interrupted or not, the loop goes on.
            let events: &[epoll::Event] =
                match epoll::wait(self.epoll.as_fd(), &mut buffer, timeout.as_ref()) {
                    Ok((events, _)) => events,
                    Err(_) => &[],
                };
            let retry = self.retry.take();
            for event in events {
                self.handle(event.data.u64());
            }
            if retry.is_some() {
                self.accept_everywhere(BATCH);
            }
        }
        self.counts.unanswered_at_end += self.connections.unanswered() as u64;
        let open = self.connections.open() - self.connections.unanswered();
        self.counts.open_at_end += open as u64;
        self.counts
    }

    fn finished(&self) -> bool {
        self.finish_by
            .is_some_and(|by| self.connections.unanswered() == 0 || Instant::now() >= by)
    }

    fn timeout(&self) -> Option<Timespec> {
        let until_finish = self
            .finish_by
            .map(|by| by.saturating_duration_since(Instant::now()));
        let shortest = until_finish.into_iter().chain(self.retry).min()?;
        Timespec::try_from(shortest).ok()
    }

    fn handle(&mut self, token: u64) {
        if token >= FIRST_TOKEN {
            self.connections.serve(token, &mut self.counts);
        } else if token == WAKE_TOKEN {
            let _ = rustix::io::read(&*self.wake, &mut [0; 8]);
            while let Ok(message) = self.received.try_recv() {
                self.obey(message);
            }
        } else if let Ok(place) = usize::try_from(token) {
            self.accept(place, BATCH);
        }
    }

    fn obey(&mut self, message: Message) {
        match message {
            Message::Adopt(socket) => {
                self.connections
                    .adopt(&self.epoll, socket, &mut self.counts);
            }
            Message::ListenerLost => self.counts.listeners_lost += 1,
            Message::StopListening(stop, done) => {
                self.stop_listening(stop);
                // Nobody listens where the server is ending anyway.
                let _ = done.send(());
            }
            Message::Finish => self.finish_by = Some(Instant::now() + FINISH_TIMEOUT),
        }
    }

    fn stop_listening(&mut self, stop: Stop) {
        match stop {
            Stop::Close => self.close_listeners(),
            Stop::DrainClose => {
                self.accept_everywhere(usize::MAX);
                self.close_listeners();
            }
            Stop::Linger => {
                self.retry = None;
                for listener in self.listeners.iter().flatten() {
                    // It was added at the start, or has been lost since.
                    let _ = epoll::delete(&self.epoll, listener);
                }
            }
        }
    }

    fn close_listeners(&mut self) {
        for listener in self.listeners.drain(..).flatten() {
            // Its event may be in the queue behind the one that brought this worker here.
            self.counts.listeners_lost += u64::from(!is_listening(&listener));
        }
    }

    fn accept_everywhere(&mut self, most: usize) {
        for place in 0..self.listeners.len() {
            self.accept(place, most);
        }
    }

    fn accept(&mut self, place: usize, most: usize) {
        for _ in 0..most {
            let Some(Some(listener)) = self.listeners.get(place) else {
                return;
            };
            match accept_one(listener) {
                Accepted::Connection(socket) => {
                    self.connections
                        .adopt(&self.epoll, socket, &mut self.counts);
                }
                Accepted::Empty => return,
                Accepted::Next => self.counts.accept_errors += 1,
                Accepted::NoRoom => {
                    self.counts.accept_errors += 1;
                    self.retry = Some(NO_ROOM_PAUSE);
                    return;
                }
                Accepted::Closed => {
                    // Closing it takes it out of the epoll, where it would be ready for ever.
                    self.counts.listeners_lost += 1;
                    self.listeners[place] = None;
                    return;
                }
            }
        }
        if self.edge {
            self.retry = Some(Duration::ZERO);
        }
    }
}
