//! Waking acceptors who sleep while connections wait for them.
//!
//! From 5.14 on, and until the fix of CVE-2026-46015, Linux queues connections that it moves from one
//! listener to another without waking who waits at the other (`inet_csk_listen_stop`,
//! <https://elixir.bootlin.com/linux/v6.12/source/net/ipv4/inet_connection_sock.c>). They are answered
//! when the next connection arrives there, which at a quiet service may be never. Nothing but a
//! connection wakes a sleeper: not an option, not another `listen`.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use super::{Address, SocketCookie};

/// How often it is tried. With as many connections as listeners in each round, the hash misses a
/// given listener in all of them once in 9 million times.
const ROUNDS: u32 = 16;

/// At most that many connections go to one address in one round.
const MOST_IN_A_ROUND: usize = 64;

/// The first pause for the acceptors to do their work; it doubles up to [`LONGEST_PAUSE`].
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);

/// The longest pause between two rounds.
const LONGEST_PAUSE: Duration = Duration::from_millis(128);

/// Who wakes acceptors to whom the kernel has moved connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waker {
    /// The kernel, as for every other connection; or nobody has to, since it moves none.
    Kernel,
    /// This kernel forgets to, so the daemon does.
    Daemon,
}

/// What an attempt to wake acceptors is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Occasion {
    /// How many connections the kernel has moved in the namespace.
    pub moved: u64,
    /// Whose acceptors may sleep: connections may have been moved to these before they served, and
    /// before anybody looked at them.
    pub listeners: BTreeSet<SocketCookie>,
}

impl Occasion {
    /// Whether somebody may sleep, after an attempt for `last`. Nobody does where nothing was ever
    /// moved, nor where nothing has come to it since.
    #[must_use]
    pub fn calls_for_it(&self, last: Option<&Self>) -> bool {
        self.moved > 0 && last != Some(self)
    }
}

/// How an attempt to wake acceptors goes on. It ends after [`ROUNDS`] rounds and a little more than a
/// second of pauses, whatever the acceptors do: they may hang, and then every connection is one more
/// in their queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waking {
    rounds: u32,
    pause: Duration,
}

impl Waking {
    /// How long what waits may wait before whoever it waits for is taken to be asleep.
    pub const BEFORE: Duration = Duration::from_millis(5);

    /// An attempt that begins.
    #[must_use]
    pub fn new() -> Self {
        Self {
            rounds: ROUNDS,
            pause: SHORTEST_PAUSE,
        }
    }

    /// Whether there is another round where connections still wait for somebody, and how long to pause
    /// after it.
    #[must_use]
    pub fn round(&mut self) -> Option<Duration> {
        self.rounds = self.rounds.checked_sub(1)?;
        let pause = self.pause;
        self.pause = (pause * 2).min(LONGEST_PAUSE);
        Some(pause)
    }

    /// How many connections a round makes to an address with that many listeners. The kernel's hash
    /// says whom each of them wakes, and it takes the port in that it comes from.
    #[must_use]
    pub fn connections(listeners: usize) -> usize {
        listeners.min(MOST_IN_A_ROUND)
    }
}

impl Default for Waking {
    fn default() -> Self {
        Self::new()
    }
}

/// Where a connection from the same machine reaches an address, in the order in which to try.
#[must_use]
pub fn reached_at(address: &Address) -> Vec<SocketAddr> {
    let v4 = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let ips = match address.socket.ip().to_canonical() {
        IpAddr::V4(ip) if ip.is_unspecified() => vec![v4],
        IpAddr::V6(ip) if ip.is_unspecified() => {
            let v6 = IpAddr::V6(Ipv6Addr::LOCALHOST);
            // IPv6 may be turned off for the loopback device alone.
            if address.v6only {
                vec![v6]
            } else {
                vec![v6, v4]
            }
        }
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => vec![ip],
    };
    let port = address.socket.port();
    ips.into_iter()
        .map(|ip| SocketAddr::new(ip, port))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_ends_in_rounds_and_in_time() {
        let mut waking = Waking::new();
        let pauses: Vec<Duration> = std::iter::from_fn(|| waking.round()).collect();
        assert_eq!(pauses.len(), 16);
        assert_eq!(pauses[..3], [1, 2, 4].map(Duration::from_millis));
        assert_eq!(pauses[15], LONGEST_PAUSE);
        assert!(pauses.iter().sum::<Duration>() < Duration::from_secs(2));
        assert_eq!(waking.round(), None);
    }

    #[test]
    fn a_round_wakes_every_listener_once_on_average() {
        assert_eq!(Waking::connections(0), 0);
        assert_eq!(Waking::connections(8), 8);
        assert_eq!(Waking::connections(1023), MOST_IN_A_ROUND);
    }

    #[test]
    fn nobody_sleeps_where_nothing_was_moved() {
        let occasion = |moved, listeners: &[u64]| Occasion {
            moved,
            listeners: listeners.iter().copied().map(SocketCookie).collect(),
        };
        assert!(!occasion(0, &[1]).calls_for_it(None));
        assert!(!occasion(0, &[1]).calls_for_it(Some(&occasion(0, &[2]))));
        assert!(occasion(1, &[1]).calls_for_it(None));
        assert!(occasion(1, &[1]).calls_for_it(Some(&occasion(0, &[1]))));
        assert!(!occasion(1, &[1]).calls_for_it(Some(&occasion(1, &[1]))));
        // Who takes over may be who they were moved to.
        assert!(occasion(1, &[2]).calls_for_it(Some(&occasion(1, &[1]))));
    }

    #[test]
    fn an_address_is_reached_from_within() {
        for (address, expected) in [
            ("0.0.0.0:80", &["127.0.0.1:80"][..]),
            ("10.0.0.1:80", &["10.0.0.1:80"]),
            ("[::]:80", &["[::1]:80", "127.0.0.1:80"]),
            ("[::]:80,v6only", &["[::1]:80"]),
            ("[2001:db8::1]:80", &["[2001:db8::1]:80"]),
            ("[::ffff:10.0.0.1]:80", &["10.0.0.1:80"]),
            ("[::ffff:0.0.0.0]:80", &["127.0.0.1:80"]),
        ] {
            let reached = reached_at(&address.parse().expect(address));
            let reached: Vec<String> = reached.iter().map(SocketAddr::to_string).collect();
            assert_eq!(reached, expected, "{address}");
        }
    }
}
