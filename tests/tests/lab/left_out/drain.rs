//! What a drain waits for, as steps that can be left out.

use std::collections::HashSet;

use anyhow::Result;
use reuseport_daemon::{
    domain::SocketCookie,
    lab::{fixture::Fixture, world::World},
    sys::{grace::GracePeriod, sock_diag::SockDiag, socket},
};
use reuseport_tests::wait::until;
use std::os::fd::AsFd;

use crate::lab::setup::{PORT, listeners_of};

/// What the servers' namespace tells of a service.
pub(super) struct Drain {
    grace: GracePeriod,
    diag: SockDiag,
}

impl Drain {
    pub(super) fn of(world: &World) -> Result<Self> {
        Ok(Self {
            grace: GracePeriod::probe()?,
            diag: world.server().enter(SockDiag::open)??,
        })
    }

    /// All that a migration waits for before an old listener may close.
    pub(super) fn everything(&self, listener: SocketCookie) -> Result<()> {
        self.grace()?;
        self.handshakes()?;
        self.grace()?;
        self.queue(listener)
    }

    /// Until no packet is being processed that saw the table of before.
    pub(super) fn grace(&self) -> Result<()> {
        Ok(self.grace.wait()?)
    }

    /// Until every handshake that is half-open now has ended.
    fn handshakes(&self) -> Result<()> {
        let mut open = self.diag.handshakes(PORT)?;
        until("handshakes end", || {
            let mut left = HashSet::new();
            for handshake in &open {
                if self.diag.is_half_open(handshake)? {
                    left.insert(*handshake);
                }
            }
            open = left;
            Ok(open.is_empty())
        })
    }

    /// Until the server has accepted everything.
    fn queue(&self, listener: SocketCookie) -> Result<()> {
        until("the queue is empty", || Ok(self.queued(listener)? == 0))
    }

    /// How many connections wait to be accepted.
    pub(super) fn queued(&self, listener: SocketCookie) -> Result<u32> {
        let rows = self.diag.listeners(Some(PORT))?;
        let ours = rows.iter().filter(|it| it.cookie == listener);
        Ok(ours.map(|it| it.accept_queue).sum())
    }
}

/// The identity of a server's only listener.
pub(super) fn cookie_of(server: &Fixture) -> Result<SocketCookie> {
    let listeners = listeners_of(server)?;
    let [listener] = listeners.as_slice() else {
        anyhow::bail!("{} listeners", listeners.len());
    };
    Ok(SocketCookie(rustix::net::sockopt::socket_cookie(listener)?))
}

/// Closes a server's listeners under its hands, as a daemon may.
pub(super) fn shut_down(server: &Fixture) -> Result<()> {
    for listener in listeners_of(server)? {
        socket::shutdown(listener.as_fd())?;
    }
    Ok(())
}
