//! What the link does with the packets of a cell's clients, and what it has seen of them.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use reuseport_daemon::lab::link::{Direction, Link, Segment, Verdict};
use reuseport_tests::stage::PORT;

/// What is done with what clients send, up to the next rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Everything goes its way.
    Pass,
    /// SYNs wait.
    HoldSyns,
    /// The SYNs of every second client wait.
    HoldEverySecondSyn,
    /// SYNs that are sent again wait.
    HoldLaterSyns,
    /// Everything after the first SYN waits.
    HoldAllButFirstSyn,
    /// Everything after the SYN waits.
    HoldRest,
    /// Everything after the SYN waits, of every second client.
    HoldEverySecondRest,
    /// Everything after the SYN gets lost.
    DropRest,
    /// The same, for each client until it has been sent a SYN-ACK under this rule.
    DropRestUntilSynAck,
}

/// A client: the version of IP that it speaks, and its port.
type Client = (u8, u16);

/// The filter of a link.
#[derive(Debug, Default)]
pub(crate) struct Sieve {
    seen: Arc<Mutex<Seen>>,
}

#[derive(Debug, Default)]
struct Seen {
    /// Clients in the order of their first SYNs.
    clients: Vec<Client>,
    answered: BTreeSet<Client>,
    answered_under_rule: BTreeSet<Client>,
}

impl Sieve {
    /// Puts every packet from now on under `rule`, those that are being held included.
    pub(crate) fn set(&self, link: &Link, rule: Rule) {
        self.seen().answered_under_rule.clear();
        let seen = Arc::clone(&self.seen);
        link.set_filter(Box::new(move |direction, packet| {
            lock(&seen).judge(rule, direction, packet)
        }));
    }

    /// How many clients have sent a SYN.
    pub(crate) fn clients(&self) -> usize {
        self.seen().clients.len()
    }

    /// How many clients have been sent a SYN-ACK.
    pub(crate) fn answered(&self) -> usize {
        self.seen().answered.len()
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        lock(&self.seen)
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    // What it counts is whole between any two packets.
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Seen {
    fn judge(&mut self, rule: Rule, direction: Direction, packet: &[u8]) -> Verdict {
        let Some(segment) = Segment::parse(packet) else {
            return Verdict::Pass;
        };
        let version = packet[0] >> 4;
        match direction {
            Direction::ToClient if segment.source == PORT => {
                if segment.is_syn_ack() {
                    let client = (version, segment.destination);
                    self.answered.insert(client);
                    self.answered_under_rule.insert(client);
                }
                Verdict::Pass
            }
            Direction::ToServer if segment.destination == PORT => {
                let client = (version, segment.source);
                let (place, first) = self.place(client);
                let second = place % 2 == 1;
                let syn = segment.is_syn();
                match rule {
                    Rule::Pass => Verdict::Pass,
                    Rule::HoldSyns => hold_if(syn),
                    Rule::HoldEverySecondSyn => hold_if(syn && second),
                    Rule::HoldLaterSyns => hold_if(syn && !first),
                    Rule::HoldAllButFirstSyn => hold_if(!first),
                    Rule::HoldRest => hold_if(!syn),
                    Rule::HoldEverySecondRest => hold_if(!syn && second),
                    Rule::DropRest => drop_if(!syn),
                    Rule::DropRestUntilSynAck => {
                        drop_if(!syn && !self.answered_under_rule.contains(&client))
                    }
                }
            }
            Direction::ToClient | Direction::ToServer => Verdict::Pass,
        }
    }

    /// Which client this is, in the order of their first packets, and whether this is its first.
    fn place(&mut self, client: Client) -> (usize, bool) {
        if let Some(place) = self.clients.iter().position(|it| *it == client) {
            return (place, false);
        }
        self.clients.push(client);
        (self.clients.len() - 1, true)
    }
}

fn hold_if(hit: bool) -> Verdict {
    if hit { Verdict::Hold } else { Verdict::Pass }
}

fn drop_if(hit: bool) -> Verdict {
    if hit { Verdict::Drop } else { Verdict::Pass }
}
