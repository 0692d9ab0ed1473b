//! A link with delay and loss between two network namespaces: a TUN device in each and a relay
//! between them. It needs no kernel feature but `tun`, and does what netem would.

mod line;
mod packet;
mod relay;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener},
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::event::{EventfdFlags, eventfd};
use thiserror::Error;

pub use packet::Segment;

use self::relay::Relay;
use crate::sys::{
    interface::{Interface, InterfaceError},
    netns::{Netns, NetnsError},
    tun::{Tun, TunError},
};

/// Addresses of a link's end.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// IPv4.
    pub v4: Ipv4Addr,
    /// IPv6.
    pub v6: Ipv6Addr,
}

/// The server's end (RFC 2544 sets the IPv4 range aside for test networks).
pub const SERVER: Ends = Ends {
    v4: Ipv4Addr::new(198, 18, 0, 1),
    v6: Ipv6Addr::new(0xfd00, 0x1ab, 0, 0, 0, 0, 0, 1),
};

/// The client's end.
pub const CLIENT: Ends = Ends {
    v4: Ipv4Addr::new(198, 18, 0, 2),
    v6: Ipv6Addr::new(0xfd00, 0x1ab, 0, 0, 0, 0, 0, 2),
};

/// The name of the device at either end.
pub const DEVICE: &str = "lab0";

/// Loss is given in parts of this.
pub const LOSS_UNIT: u32 = 1_000_000;

/// How a link treats its packets.
#[derive(Clone, Copy, Debug)]
pub struct LinkOptions {
    /// How long each packet is under way: half of a round trip.
    pub delay: Duration,
    /// How many of a million packets get lost, in either direction.
    pub loss: u32,
    /// Which packets those are: the same seed loses the same ones.
    pub seed: u64,
}

impl LinkOptions {
    /// A link on which nothing gets lost.
    #[must_use]
    pub fn with_delay(delay: Duration) -> Self {
        Self {
            delay,
            loss: 0,
            seed: 1,
        }
    }
}

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From a client.
    ToServer,
    /// From a server.
    ToClient,
}

/// What a filter wants done with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes its way, subject to delay and loss.
    Pass,
    /// It is lost.
    Drop,
    /// It waits until the filter changes, and is then judged again.
    Hold,
}

/// Looks at every packet before anything else is done with it; gets the IP packet, of which
/// [`Segment::parse`] makes sense.
pub type Filter = Box<dyn FnMut(Direction, &[u8]) -> Verdict + Send>;

/// A link that cannot be made.
#[derive(Debug, Error)]
pub enum LinkError {
    /// An end's namespace cannot be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// An end's device cannot be made.
    #[error(transparent)]
    Tun(#[from] TunError),
    /// An end's device cannot be set up.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    /// An end's address does not become usable.
    #[error("the address {address} does not become usable")]
    Unusable {
        /// Which.
        address: Ipv6Addr,
        /// What the kernel says to a socket that wants it.
        source: io::Error,
    },
    /// No descriptor to wake the relay with.
    #[error("create an eventfd")]
    Wake(#[source] io::Error),
    /// No thread for the relay.
    #[error("start the relay's thread")]
    Thread(#[source] io::Error),
}

/// How many packets had which end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounts {
    /// Delivered.
    pub delivered: u64,
    /// Lost as [`LinkOptions::loss`] wants it.
    pub lost: u64,
    /// Dropped by the filter.
    pub dropped: u64,
    /// Held back by the filter, each time it said so.
    pub held: u64,
    /// Not taken by the receiving end, or held in too great a number.
    pub refused: u64,
}

/// A link that works until it is dropped; its devices and its thread go with it.
#[derive(Debug)]
pub struct Link {
    control: Arc<Control>,
    relay: Option<thread::JoinHandle<()>>,
}

impl Link {
    /// Links two namespaces, which get the addresses [`SERVER`] and [`CLIENT`].
    ///
    /// # Errors
    ///
    /// Any [`LinkError`]; nothing is left behind then.
    pub fn between(
        server: &Netns,
        client: &Netns,
        options: LinkOptions,
    ) -> Result<Self, LinkError> {
        let server_end = server.enter(|| end(SERVER))??;
        let client_end = client.enter(|| end(CLIENT))??;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|source| LinkError::Wake(source.into()))?;
        let control = Arc::new(Control {
            wake,
            stop: AtomicBool::new(false),
            filter: Mutex::new(Slot::default()),
            counts: Counters::default(),
        });
        let relay = Relay::new([server_end, client_end], options, Arc::clone(&control));
        let relay = thread::Builder::new()
            .name("link".to_owned())
            .spawn(move || relay.run())
            .map_err(LinkError::Thread)?;
        Ok(Self {
            control,
            relay: Some(relay),
        })
    }

    /// Puts every packet from now on before `filter`, those that are being held included.
    pub fn set_filter(&self, filter: Filter) {
        self.control.change_filter(Some(filter));
    }

    /// Takes the filter away; what it held back goes on.
    pub fn clear_filter(&self) {
        self.control.change_filter(None);
    }

    /// What became of the packets so far.
    #[must_use]
    pub fn counts(&self) -> LinkCounts {
        let counts = &self.control.counts;
        LinkCounts {
            delivered: counts.delivered.load(Ordering::Relaxed),
            lost: counts.lost.load(Ordering::Relaxed),
            dropped: counts.dropped.load(Ordering::Relaxed),
            held: counts.held.load(Ordering::Relaxed),
            refused: counts.refused.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.control.stop.store(true, Ordering::Release);
        self.control.wake();
        if let Some(relay) = self.relay.take() {
            // A relay that panicked has said so on its way, and a drop has no one to tell.
            let _ = relay.join();
        }
    }
}

/// What the relay and the link's owner share.
#[derive(Debug)]
struct Control {
    wake: OwnedFd,
    stop: AtomicBool,
    filter: Mutex<Slot>,
    counts: Counters,
}

impl Control {
    fn change_filter(&self, filter: Option<Filter>) {
        let mut slot = self.slot();
        slot.filter = filter;
        slot.version += 1;
        drop(slot);
        self.wake();
    }

    fn slot(&self) -> MutexGuard<'_, Slot> {
        // A filter that panicked leaves the slot as usable as it was.
        self.filter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        // It fails only where the count is at its maximum, and then the relay is awake.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }
}

/// The filter, and a number that tells the relay that it is another one than before.
#[derive(Default)]
struct Slot {
    filter: Option<Filter>,
    version: u64,
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slot")
            .field("filter", &self.filter.is_some())
            .field("version", &self.version)
            .finish()
    }
}

#[derive(Debug, Default)]
struct Counters {
    delivered: AtomicU64,
    lost: AtomicU64,
    dropped: AtomicU64,
    held: AtomicU64,
    refused: AtomicU64,
}

/// Largest packet of the link in bytes, as on an Ethernet.
const MTU: u16 = 1500;

/// How many packets the kernel keeps for the relay: enough that none is lost while the relay waits
/// for a processor.
const QUEUE_LENGTH: u16 = 8192;

fn end(addresses: Ends) -> Result<Tun, LinkError> {
    const PREFIX_V4: u8 = 30;
    const PREFIX_V6: u8 = 64;
    let tun = Tun::create(DEVICE)?;
    let device = Interface::named(DEVICE)?;
    device.set_mtu(MTU)?;
    device.set_queue_length(QUEUE_LENGTH)?;
    device.add_address(IpAddr::V4(addresses.v4), PREFIX_V4)?;
    device.bring_up()?;
    // After the device is up, as addresses of one that is down are not made usable. A device without
    // neighbours needs no duplicate address detection, but it is still a work queue that finds so.
    device.add_address(IpAddr::V6(addresses.v6), PREFIX_V6)?;
    wait_until_usable(addresses.v6)?;
    Ok(tun)
}

/// Waits until a socket of this namespace can have the address, as packets for it are dropped before.
/// <https://elixir.bootlin.com/linux/v6.18/source/net/ipv6/addrconf.c>
fn wait_until_usable(address: Ipv6Addr) -> Result<(), LinkError> {
    /// More than 15 s have been seen, on a machine with much else to do.
    const DEADLINE: Duration = Duration::from_secs(60);
    const LOOK_EVERY: Duration = Duration::from_millis(1);
    let end = Instant::now() + DEADLINE;
    while let Err(source) = TcpListener::bind((address, 0)) {
        if Instant::now() >= end {
            return Err(LinkError::Unusable { address, source });
        }
        thread::sleep(LOOK_EVERY);
    }
    Ok(())
}
