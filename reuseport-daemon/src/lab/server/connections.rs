//! The connections of one worker: read requests, answer them, close or wait for more.

use std::os::fd::OwnedFd;

use rustix::{
    event::epoll,
    io::Errno,
    net::{RecvFlags, SendFlags, recv, send},
};

use super::counts::Counts;
use crate::lab::wire::{After, Answer, REQUEST_LEN, Request, Tag};

/// epoll data of a connection: its place, counted from here.
pub(super) const FIRST_TOKEN: u64 = 1 << 32;

pub(super) struct Connections {
    tag: Tag,
    places: Vec<Option<Connection>>,
    free: Vec<usize>,
    unanswered: usize,
}

struct Connection {
    socket: OwnedFd,
    request: [u8; REQUEST_LEN],
    filled: usize,
    answered: bool,
}

/// Where a connection stands after it was served.
enum State {
    /// More may come.
    Open,
    /// It is over.
    Over,
}

impl Connections {
    pub(super) fn new(tag: Tag) -> Self {
        Self {
            tag,
            places: Vec::new(),
            free: Vec::new(),
            unanswered: 0,
        }
    }

    /// Takes in a connection and serves what it has brought already: most clients send their request
    /// at once, so that most connections never see epoll.
    pub(super) fn adopt(&mut self, epoll: &OwnedFd, socket: OwnedFd, counts: &mut Counts) {
        let mut connection = Connection {
            socket,
            request: [0; REQUEST_LEN],
            filled: 0,
            answered: false,
        };
        counts.accepted += 1;
        match connection.serve(self.tag, counts) {
            State::Over => {}
            State::Open => self.keep(epoll, connection, counts),
        }
    }

    /// Serves what a connection has brought.
    pub(super) fn serve(&mut self, token: u64, counts: &mut Counts) {
        let Some(place) = token
            .checked_sub(FIRST_TOKEN)
            .and_then(|place| usize::try_from(place).ok())
        else {
            return;
        };
        let Some(Some(connection)) = self.places.get_mut(place) else {
            return;
        };
        let was_answered = connection.answered;
        let state = connection.serve(self.tag, counts);
        let ended_unanswered = matches!(state, State::Over) && !was_answered;
        if ended_unanswered || (!was_answered && connection.answered) {
            self.unanswered -= 1;
        }
        match state {
            State::Open => {}
            State::Over => {
                self.places[place] = None;
                self.free.push(place);
            }
        }
    }

    /// How many have not had an answer yet.
    pub(super) fn unanswered(&self) -> usize {
        self.unanswered
    }

    /// How many are open.
    pub(super) fn open(&self) -> usize {
        self.places.len() - self.free.len()
    }

    fn keep(&mut self, epoll: &OwnedFd, connection: Connection, counts: &mut Counts) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() - 1
        });
        let data = epoll::EventData::new_u64(FIRST_TOKEN + place as u64);
        if epoll::add(epoll, &connection.socket, data, epoll::EventFlags::IN).is_err() {
            counts.without_request += 1;
            self.free.push(place);
            return;
        }
        self.unanswered += usize::from(!connection.answered);
        self.places[place] = Some(connection);
    }
}

impl Connection {
    fn serve(&mut self, tag: Tag, counts: &mut Counts) -> State {
        loop {
            let room = &mut self.request[self.filled..];
            match recv(&self.socket, room, RecvFlags::empty()) {
                Err(Errno::AGAIN | Errno::INTR) => return State::Open,
                Ok((1.., length)) => self.filled += length,
                Ok((0, _)) | Err(_) => return self.left_by_client(counts),
            }
            if self.filled < REQUEST_LEN {
                continue;
            }
            self.filled = 0;
            match self.answer(tag) {
                Some(after) => {
                    counts.answered += 1;
                    self.answered = true;
                    if after == After::Close {
                        return State::Over;
                    }
                }
                None => return self.left_by_client(counts),
            }
        }
    }

    /// Answers the request; `None` where it is none, or the client does not take the answer.
    fn answer(&self, tag: Tag) -> Option<After> {
        let request = Request::decode(&self.request)?;
        let answer = Answer {
            id: request.id,
            tag,
        };
        let flags = match request.after {
            // The answer and the end of the stream go out in one segment.
            After::Close => SendFlags::NOSIGNAL | SendFlags::MORE,
            After::KeepOpen => SendFlags::NOSIGNAL,
        };
        let bytes = answer.encode();
        let sent = send(&self.socket, &bytes, flags).ok()?;
        (sent == bytes.len()).then_some(request.after)
    }

    fn left_by_client(&self, counts: &mut Counts) -> State {
        if self.answered {
            counts.ended_by_client += 1;
        } else {
            counts.without_request += 1;
        }
        State::Over
    }
}
