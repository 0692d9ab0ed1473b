//! Connections that stay open, and speak now and then.

use std::{io, net::SocketAddr, os::fd::OwnedFd};

use super::{
    LoadError, Shared,
    exchange::{self, Failure},
};
use crate::lab::{
    ledger::{Fate, Ledger, LossKind},
    wire::Tag,
};

/// All sessions of a load, which take turns on one thread.
pub(super) struct Sessions<'a> {
    shared: &'a Shared,
    ledger: Ledger,
    open: Vec<Session>,
}

struct Session {
    target: SocketAddr,
    socket: OwnedFd,
    /// Who accepted it.
    owner: Tag,
}

impl<'a> Sessions<'a> {
    /// Opens the sessions and lets them speak until the load is stopped. A session that loses a
    /// request speaks no more: what it could still say would be the same loss over again.
    pub(super) fn run(shared: &'a Shared, number: u32) -> Result<Ledger, LoadError> {
        let mut sessions = Self {
            shared,
            ledger: Ledger::of_client(number),
            open: Vec::new(),
        };
        sessions.open_all()?;
        while !shared.stopped() {
            sessions.all_speak()?;
            shared.pause(shared.options.session_pause);
        }
        Ok(sessions.ledger)
    }

    fn open_all(&mut self) -> Result<(), LoadError> {
        for number in 0..self.shared.options.sessions {
            let target = self.shared.target(number);
            let options = &self.shared.options;
            let mut opened = None;
            // The first request comes with the connection, so that a loss of either is in the
            // ledger.
            let fate = self.shared.account(&mut self.ledger, |id| {
                let socket = exchange::open(target, options.step_timeout)?;
                let tag = exchange::ask_again(&socket, options.protocol, id)?;
                opened = Some(socket);
                Ok(tag)
            });
            let fate = fate.map_err(|failed| unable(target, failed))?;
            if let (Some(socket), Fate::Answered(tag)) = (opened, fate) {
                self.open.push(Session {
                    target,
                    socket,
                    owner: tag,
                });
            }
        }
        Ok(())
    }

    fn all_speak(&mut self) -> Result<(), LoadError> {
        let protocol = self.shared.options.protocol;
        let mut still_open = Vec::with_capacity(self.open.len());
        for session in self.open.drain(..) {
            let fate = self.shared.account(&mut self.ledger, |id| {
                let tag = exchange::ask_again(&session.socket, protocol, id)?;
                if session.owner == tag {
                    Ok(tag)
                } else {
                    Err(Failure::Lost(LossKind::Wrong))
                }
            });
            match fate.map_err(|failed| unable(session.target, failed))? {
                Fate::Answered(_) => still_open.push(session),
                Fate::Lost(_) => {}
            }
        }
        self.open = still_open;
        Ok(())
    }
}

fn unable(target: SocketAddr, (step, source): (&'static str, io::Error)) -> LoadError {
    LoadError::Client {
        step,
        target,
        source,
    }
}
