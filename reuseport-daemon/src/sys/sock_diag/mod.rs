//! The kernel's socket table of one network namespace, read through netlink.
//!
//! # What a dump is worth
//!
//! A dump is not a snapshot of one moment. The kernel walks its hash table bucket by bucket, each
//! under its lock, and fills one datagram after the other. Where a datagram ends within a bucket it
//! remembers how many of the bucket's sockets it has passed, and skips that many when it goes on, as it
//! does after every 16 sockets of a bucket that the answer is to have (`tcp_diag_dump`,
//! <https://elixir.bootlin.com/linux/v6.18/source/net/ipv4/tcp_diag.c>). Meanwhile new sockets
//! enter at the bucket's head, which makes it report one twice; or an earlier one leaves, which
//! makes it skip one that was there all the time. A socket never changes its bucket. So a dump that
//! fits into one datagram misses nothing that was there throughout, unless there are 16 in one of many
//! thousand buckets, and a longer one may miss a socket at each seam.
//!
//! The drain must not take a handshake for finished that is not, a migration must not overlook a
//! listener, and a deploy must not stop a server whose last session was skipped. All three readings
//! therefore repeat a dump that had a seam, and report what either run has seen: to be missed, a
//! socket would have to be at a seam twice, and each time a neighbour in its bucket would have to
//! leave in the few microseconds between two datagrams. [`SockDiag::sessions_at`], by which nothing is
//! decided, does not.
//!
//! Whether a handshake that was seen is still going on takes no dump: [`SockDiag::is_half_open`]
//! asks for that one socket, which the kernel looks up by its addresses as it does for a packet. That
//! is exact, and costs the same with 100,000 other connections around.

mod channel;
mod keys;
mod rows;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    io,
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use netlink_packet_core::DecodeError;
use netlink_packet_sock_diag::inet::StateFlags;
use thiserror::Error;

use self::{
    channel::{Channel, Seams},
    rows::{FAMILIES, request},
};
use crate::domain::{Address, SocketCookie};

/// Without a holder these are in an accept queue: closing moves a connection on to the states below.
const OPEN: StateFlags = StateFlags::ESTABLISHED.union(StateFlags::CLOSE_WAIT);

/// Without a holder these are closed, and only the kernel still cares.
const CLOSING: StateFlags = StateFlags::FIN_WAIT1
    .union(StateFlags::FIN_WAIT2)
    .union(StateFlags::LAST_ACK)
    .union(StateFlags::CLOSING);

/// The socket table could not be read.
#[derive(Debug, Error)]
pub enum SockDiagError {
    /// The kernel has no `tcp_diag`, or could not load the module.
    #[error("the kernel cannot list TCP sockets: inet_diag or tcp_diag is missing")]
    NoModule,
    /// A system call, or the kernel's answer to the request.
    #[error("{call} failed")]
    Call {
        /// The call.
        call: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The kernel gave up in the middle, as it does out of memory. The reader is stuck then; open
    /// another one.
    #[error("the kernel broke off its answer")]
    BrokenOff(#[source] io::Error),
    /// A message that does not follow the protocol.
    #[error("the kernel's answer is malformed")]
    Malformed(#[source] DecodeError),
}

/// A listening TCP socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerRow {
    /// Where it listens.
    pub address: Address,
    /// Its inode, which leads from a process to the socket.
    pub inode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its identity.
    pub cookie: SocketCookie,
    /// Connections that wait to be accepted.
    pub accept_queue: u32,
    /// How many may wait.
    pub backlog: u32,
}

/// A half-open connection, which does not say which listener it belongs to. IPv4 addresses are
/// written as such also where the listener is a dual-stack one, whose handshakes the kernel reports
/// as IPv6 with mapped addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Handshake {
    /// The server's side.
    pub local: SocketAddr,
    /// The client's side.
    pub remote: SocketAddr,
    /// Tells it from a later one between the same addresses.
    pub cookie: SocketCookie,
    /// The device that it is bound to, or 0: part of the key that the kernel looks it up by.
    interface: u32,
}

/// The open connections of a port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sessions {
    /// The inodes of those that a process has accepted and still holds, in ascending order.
    pub inodes: Vec<u32>,
    /// Those that no process has accepted yet, with the server's side, which is written as that of a
    /// [`Handshake`].
    pub unaccepted: HashMap<SocketCookie, SocketAddr>,
}

/// Where a service's sockets are: the kernel tells those of one family at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Whether they are IPv6 sockets, which connections over IPv4 to a dual-stack listener are too.
    pub ipv6: bool,
    /// Their port.
    pub port: u16,
}

/// A reader of the socket table of one network namespace. It stays with that namespace, whichever
/// thread uses it.
#[derive(Debug)]
pub struct SockDiag {
    channel: Mutex<Channel>,
}

impl SockDiag {
    /// A reader for the calling thread's network namespace. It needs no privilege.
    ///
    /// # Errors
    ///
    /// When no netlink socket can be had.
    pub fn open() -> Result<Self, SockDiagError> {
        Ok(Self {
            channel: Mutex::new(Channel::open()?),
        })
    }

    /// The TCP listeners of both families, on `port` or on any.
    ///
    /// # Errors
    ///
    /// When the kernel does not answer, or not properly.
    pub fn listeners(&self, port: Option<u16>) -> Result<Vec<ListenerRow>, SockDiagError> {
        let mut channel = self.channel();
        let mut found: HashMap<SocketCookie, rows::Listener> = HashMap::new();
        complete(&mut channel, &StateFlags::LISTEN, port, |row| {
            let listener = rows::Listener::from(&row)?;
            found.insert(listener.cookie, listener);
            Ok(())
        })?;
        let mut listeners = found
            .into_values()
            .map(|listener| listener.resolve(channel.socket()))
            .collect::<Result<Vec<_>, _>>()?;
        listeners.sort_unstable_by_key(|listener| listener.cookie);
        Ok(listeners)
    }

    /// The half-open connections of `port`. Those of Fast Open are left out: with the data of their
    /// SYN they have come into the accept queue already, or out of it.
    ///
    /// # Errors
    ///
    /// When the kernel does not answer, or not properly.
    pub fn handshakes(&self, port: u16) -> Result<HashSet<Handshake>, SockDiagError> {
        let mut found = HashSet::new();
        complete(
            &mut self.channel(),
            &StateFlags::SYN_RECV,
            Some(port),
            |row| {
                if !rows::is_socket(&row)? {
                    found.insert(rows::handshake(&row));
                }
                Ok(())
            },
        )?;
        Ok(found)
    }

    /// Whether `handshake` is still half-open: neither finished nor given up.
    ///
    /// # Errors
    ///
    /// When the kernel does not answer, or not properly.
    pub fn is_half_open(&self, handshake: &Handshake) -> Result<bool, SockDiagError> {
        let mut half_open = false;
        self.channel().one(&rows::lookup(handshake), |row| {
            let state = StateFlags::from_bits_truncate(1 << (row.header.state & 31));
            half_open = state == StateFlags::SYN_RECV && !rows::is_socket(&row)?;
            Ok(())
        })?;
        Ok(half_open)
    }

    /// The open connections of `port`: established ones, and ones that either side has closed for
    /// writing while a process still holds them. Ones that end meanwhile may be in it or not.
    ///
    /// # Errors
    ///
    /// When the kernel does not answer, or not properly.
    pub fn sessions(&self, port: u16) -> Result<Sessions, SockDiagError> {
        let mut sessions = Sessions::default();
        let states = OPEN.union(CLOSING);
        complete(&mut self.channel(), &states, Some(port), |row| {
            let state = StateFlags::from_bits_truncate(1 << (row.header.state & 31));
            if row.header.inode != 0 {
                sessions.inodes.push(row.header.inode);
            } else if OPEN.contains(state) {
                let Handshake { cookie, local, .. } = rows::handshake(&row);
                sessions.unaccepted.insert(cookie, local);
            }
            Ok(())
        })?;
        sessions.inodes.sort_unstable();
        sessions.inodes.dedup();
        Ok(sessions)
    }

    /// The inodes of the open connections at each of the places that a process has accepted and still
    /// holds, in ascending order. A dump of many thousand may miss one at a seam: this is a number to
    /// show, and nothing to decide by.
    ///
    /// # Errors
    ///
    /// When the kernel does not answer, or not properly.
    pub fn sessions_at(
        &self,
        places: &BTreeSet<Place>,
    ) -> Result<BTreeMap<Place, Vec<u32>>, SockDiagError> {
        let mut found: BTreeMap<Place, Vec<u32>> = BTreeMap::new();
        for (ipv6, port) in questions(places) {
            let family = FAMILIES[usize::from(ipv6)];
            let request = request(family, OPEN.union(CLOSING), port);
            self.channel().dump(&request, |row| {
                let port = row.header.socket_id.source_port;
                let place = Place { ipv6, port };
                if row.header.inode != 0 && places.contains(&place) {
                    found.entry(place).or_default().push(row.header.inode);
                }
                Ok(())
            })?;
        }
        for inodes in found.values_mut() {
            inodes.sort_unstable();
            inodes.dedup();
        }
        Ok(found)
    }

    /// A reader that panicked has left nothing behind but its answer, which the next one skips.
    fn channel(&self) -> MutexGuard<'_, Channel> {
        self.channel.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The families and ports to ask for. Each question goes through all of the table, so that many ports
/// are cheaper had with everything else there is.
fn questions(places: &BTreeSet<Place>) -> BTreeSet<(bool, Option<u16>)> {
    const FEW: usize = 8;
    let port = |place: &Place| (places.len() <= FEW).then_some(place.port);
    places.iter().map(|it| (it.ipv6, port(it))).collect()
}

/// Every socket of both families that was there throughout, see above. A row may come twice.
fn complete(
    channel: &mut Channel,
    states: &StateFlags,
    port: Option<u16>,
    mut row: impl FnMut(rows::Row<'_>) -> Result<(), DecodeError>,
) -> Result<(), SockDiagError> {
    for family in FAMILIES {
        let request = request(family, states.clone(), port);
        match channel.dump(&request, &mut row)? {
            Seams::None => {}
            Seams::Some => _ = channel.dump(&request, &mut row)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
