//! Closing a parking listener whose place another one has taken.

use std::{
    io,
    os::fd::AsFd,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use thiserror::Error;
use tokio::{
    sync::mpsc,
    task::{self, AbortHandle},
};
use tracing::{info, warn};

use super::{super::event::Event, listener::ParkingListener};
use crate::{
    chain::chain,
    domain::{Address, ServiceName},
    sys::{
        grace::GracePeriod,
        netns::{Netns, NetnsError},
        parking,
        sock_diag::{SockDiag, SockDiagError},
    },
};

/// How long handshakes are waited for: those of clients that answer take a round trip. What is left
/// the kernel moves as well, with an acknowledgement to be sent again where that comes meanwhile.
const LIMIT: Duration = Duration::from_millis(250);

/// The pause between two readings.
const PAUSE: Duration = Duration::from_millis(2);

#[derive(Debug, Error)]
enum WaitError {
    #[error("cannot wait for a grace period")]
    Grace(#[source] io::Error),
    #[error("cannot keep packets from it")]
    Ignore(#[source] io::Error),
    #[error(transparent)]
    Netns(#[from] NetnsError),
    #[error(transparent)]
    SockDiag(#[from] SockDiagError),
}

/// Closes `listener` when no packet is on its way to it, so that the kernel moves all that it has.
///
/// The order is that of a migration: a grace period after its slot was given away, every handshake
/// that was half-open then, one more grace period, in which no packet comes to it any more. The handle
/// tells when it has been closed.
pub(super) fn start(
    listener: ParkingListener,
    service: &ServiceName,
    netns: Arc<Netns>,
    grace: GracePeriod,
    events: mpsc::UnboundedSender<Event>,
) -> AbortHandle {
    let (listener, service) = (listener.unwatched(), service.clone());
    let task = tokio::spawn(async move {
        let closed = task::spawn_blocking(move || {
            let waited = wait(&listener, &netns, grace);
            let queue = parking::queue(listener.as_fd());
            listener.close();
            (waited, queue)
        });
        // An error is a panic, with which the listener was dropped, or that the daemon is stopping.
        let Ok((waited, queue)) = closed.await else {
            return;
        };
        if let Err(error) = waited {
            warn!(%service, error = chain(&error), "a parking listener is closed before all was waited for");
        }
        match queue {
            Ok(queue) if queue.queued > 0 => {
                info!(%service, "{} connections that have waited are moved", queue.queued);
                // An error means that the daemon is stopping.
                let _ = events.send(Event::Unparked(service));
            }
            Ok(_) => {}
            Err(error) => warn!(%service, %error, "cannot tell how many connections have waited"),
        }
    });
    task.abort_handle()
}

fn wait(listener: &ParkingListener, netns: &Netns, grace: GracePeriod) -> Result<(), WaitError> {
    grace.wait().map_err(WaitError::Grace)?;
    // Without this wait the kernel moves them; the rest matters all the same.
    let handshakes = wait_for_handshakes(&listener.address, netns);
    let ignored = listener.ignore_packets().map_err(WaitError::Ignore);
    grace.wait().map_err(WaitError::Grace)?;
    handshakes.and(ignored)
}

fn wait_for_handshakes(address: &Address, netns: &Netns) -> Result<(), WaitError> {
    let end = Instant::now() + LIMIT;
    let diag = netns.enter(SockDiag::open)??;
    let mut open = diag.handshakes(address.socket.port())?;
    open.retain(|it| address.takes(it.local));
    loop {
        let mut still = Vec::new();
        for handshake in open {
            if diag.is_half_open(&handshake)? {
                still.push(handshake);
            }
        }
        if still.is_empty() || Instant::now() >= end {
            return Ok(());
        }
        open = still.into_iter().collect();
        thread::sleep(PAUSE);
    }
}
