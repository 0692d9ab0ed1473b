//! Parking listeners that an earlier daemon left in the service manager's keeping.
//!
//! Their names say what they are (`name.rs`), and each is looked at for whether it is
//! that. A service that is taken up opens new ones, and lets go of these as of any that others have
//! taken the place of: so it need not be known which of them has the slot, or had it, or was about to
//! get it.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
};

use thiserror::Error;
use tracing::{info, warn};

use super::{listener::ParkingListener, name::parse, store::Store};
use crate::{
    chain::chain,
    domain::{Address, Definition, ServiceName, SocketCookie, Uid},
    sys::{
        environment::PassedIn,
        netns::{Netns, NetnsError},
        sock_diag::{SockDiag, SockDiagError},
        socket::{self, SocketError, SocketFacts},
    },
};

/// Those that are there to be taken up. Whatever is dropped is kept for the daemon after this one.
#[derive(Debug, Default)]
pub(in crate::daemon) struct Left(BTreeMap<ServiceName, Vec<ParkingListener>>);

/// Why a descriptor is not what its name says.
#[derive(Debug, Error)]
enum Wrong {
    #[error("nothing of that name is kept")]
    Name,
    #[error("it is not a listening TCP socket that shares its port")]
    NotAListener,
    #[error("it is another socket")]
    OtherSocket,
    #[error(transparent)]
    Socket(#[from] SocketError),
}

/// Why a listener is not the service's.
#[derive(Debug, Error)]
enum Unfit {
    #[error("the service does not park")]
    DoesNotPark,
    #[error("the service does not listen there")]
    Elsewhere,
    #[error("the service is in another network namespace")]
    OtherNetns,
    #[error("the service is another user's")]
    OtherUser,
}

/// What listens in a namespace cannot be told.
#[derive(Debug, Error)]
enum LookError {
    #[error(transparent)]
    Netns(#[from] NetnsError),
    #[error(transparent)]
    SockDiag(#[from] SockDiagError),
}

impl Left {
    /// Takes what the service manager has passed. What is not what its name says is closed, and kept
    /// no longer.
    pub(in crate::daemon) fn sort(passed: Vec<PassedIn>, store: &Arc<Store>) -> Self {
        let mut left = Self::default();
        let (mut names, mut wrong) = (BTreeSet::new(), BTreeSet::new());
        for PassedIn { name, fd } in passed {
            match identify(&name, fd.as_fd()) {
                Ok((service, cookie, address)) => {
                    let listener = ParkingListener::new(fd, cookie, address, &service, store);
                    // An earlier daemon may have been about to close it.
                    if let Err(error) = listener.take_packets() {
                        warn!(name, %error, "no packets come to a parking listener");
                    }
                    left.0.entry(service).or_default().push(listener);
                    names.insert(name);
                }
                Err(error) => {
                    warn!(
                        name,
                        error = chain(&error),
                        "a descriptor of the service manager's is closed"
                    );
                    wrong.insert(name);
                }
            }
        }
        for name in wrong.difference(&names) {
            store.forget(name);
        }
        left
    }

    /// Those of a service, each with its group. What fits the service no longer is closed.
    pub(super) fn take(
        &mut self,
        definition: &Definition,
        netns: &Netns,
    ) -> Vec<(usize, ParkingListener)> {
        let Some(listeners) = self.0.remove(&definition.name) else {
            return Vec::new();
        };
        let owners = match owners(netns) {
            Ok(owners) => owners,
            Err(error) => {
                warn!(
                    service = %definition.name, error = chain(&error),
                    "listeners that connections wait in are left to the next daemon"
                );
                return Vec::new();
            }
        };
        let mut taken = Vec::new();
        for listener in listeners {
            match group_of(definition, &owners, &listener) {
                Ok(group) => taken.push((group, listener)),
                Err(error) => {
                    warn!(
                        service = %definition.name, listen = %listener.address, %error,
                        "a listener that connections waited in is closed"
                    );
                    listener.close();
                }
            }
        }
        taken
    }

    /// Closes those of a service that goes away.
    pub(in crate::daemon) fn close(&mut self, service: &ServiceName) {
        let listeners = self.0.remove(service);
        listeners
            .into_iter()
            .flatten()
            .for_each(ParkingListener::close);
    }

    /// Closes those of services that are no longer there.
    pub(in crate::daemon) fn close_all_but(&mut self, there: &BTreeMap<ServiceName, String>) {
        self.0.retain(|service, listeners| {
            if there.contains_key(service) {
                return true;
            }
            info!(%service, "there is no such service any more: its parking listeners are closed");
            listeners.drain(..).for_each(ParkingListener::close);
            false
        });
    }
}

/// Which service's listener it is, going by its name, and where it listens.
fn identify(name: &str, fd: BorrowedFd<'_>) -> Result<(ServiceName, SocketCookie, Address), Wrong> {
    let (service, cookie) = parse(name).ok_or(Wrong::Name)?;
    let SocketFacts::Tcp(facts) = socket::facts(fd)? else {
        return Err(Wrong::NotAListener);
    };
    match facts.address {
        Some(_) if facts.cookie != cookie => Err(Wrong::OtherSocket),
        Some(address) if facts.listening && facts.reuseport => Ok((service, cookie, address)),
        Some(_) | None => Err(Wrong::NotAListener),
    }
}

fn group_of(
    definition: &Definition,
    owners: &BTreeMap<SocketCookie, Uid>,
    listener: &ParkingListener,
) -> Result<usize, Unfit> {
    if definition.park_timeout.is_none() {
        return Err(Unfit::DoesNotPark);
    }
    let mut addresses = definition.addresses.iter();
    let group = addresses.position(|it| *it == listener.address);
    let group = group.ok_or(Unfit::Elsewhere)?;
    match owners.get(&listener.cookie) {
        None => Err(Unfit::OtherNetns),
        Some(owner) if *owner != definition.owner => Err(Unfit::OtherUser),
        Some(_) => Ok(group),
    }
}

/// Everything that listens in a namespace, and whose it is.
fn owners(netns: &Netns) -> Result<BTreeMap<SocketCookie, Uid>, LookError> {
    let listeners = netns.enter(SockDiag::open)??.listeners(None)?;
    let owners = listeners.iter().map(|row| (row.cookie, Uid(row.uid)));
    Ok(owners.collect())
}
