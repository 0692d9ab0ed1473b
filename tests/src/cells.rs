//! The table of `handshakes`: every state that a connection can be in when its service moves, under
//! every way to move it, and which of its cells to play where there is no time for all.

use std::fmt;

/// A factor of the table: its values, and what they are called.
pub trait Factor: Copy + Eq + fmt::Debug + Sized + 'static {
    /// Every value.
    const ALL: &'static [Self];

    /// The value in the name of a cell.
    fn name(self) -> &'static str;
}

/// Declares factors, each value with its name.
macro_rules! factors {
    ($($(#[$doc:meta])* $factor:ident { $($(#[$value_doc:meta])* $value:ident => $name:literal,)* })*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
            pub enum $factor { $($(#[$value_doc])* $value,)* }

            impl Factor for $factor {
                const ALL: &'static [Self] = &[$(Self::$value,)*];

                fn name(self) -> &'static str {
                    match self { $(Self::$value => $name,)* }
                }
            }
        )*
    };
}

factors! {
    /// How far the connections are at the switch.
    State {
        /// Their SYNs are under way: half of them arrive around the switch, half after it.
        SynInFlight => "syn_in_flight",
        /// Half-open; their ACKs arrive after the switch.
        AckDelayed => "ack_delayed",
        /// Half-open; their ACKs get lost until the migration has ended.
        AckDropped => "ack_dropped",
        /// Half-open; their ACKs get lost until the kernel has sent its SYN-ACK again.
        SynAckTimer => "syn_ack_timer",
        /// In an accept queue.
        AcceptQueue => "accept_queue",
        /// Accepted, and have not asked yet.
        Accepted => "accepted",
        /// Half-open in a SYN cookie, of which the kernel keeps nothing.
        SynCookie => "syn_cookie",
        /// In an accept queue with data from their SYNs: half of them half-open, half of them not.
        FastOpen => "fast_open",
        /// Half-open for the server, which wants data first (`TCP_DEFER_ACCEPT`).
        DeferAccept => "defer_accept",
        /// More than there is room for in the accept queue.
        AcceptQueueFull => "accept_queue_full",
        /// More half-open ones than there is room for.
        SynQueueFull => "syn_queue_full",
    }
    /// `--drain`
    Drain {
        /// The old server accepts what it has.
        Owner => "owner",
        /// The kernel moves what it has, and it stands.
        Kernel => "kernel",
        /// The daemon accepts what it has, and it stands.
        Handoff => "handoff",
    }
    /// `--retire`
    Retire {
        /// The old listeners stay.
        Keep => "keep",
        /// The daemon shuts them down.
        Shutdown => "shutdown",
        /// The old process is told to end.
        Signal => "signal:TERM",
    }
    /// What is spoken below TCP.
    Family {
        /// IPv4.
        V4 => "v4",
        /// IPv6, on listeners for nothing else.
        V6 => "v6",
        /// Both, on the same listeners.
        Dual => "dual",
    }
    /// How many listeners either server has.
    Workers {
        /// One.
        One => "1",
        /// A group of them.
        Eight => "8",
    }
    /// How either server accepts.
    Acceptor {
        /// epoll, level-triggered.
        Level => "level",
        /// epoll, edge-triggered.
        Edge => "edge",
        /// A thread in `accept`.
        Blocking => "blocking",
    }
    /// What is between clients and servers.
    Path {
        /// No delay worth speaking of.
        Near => "0ms",
        /// A round trip of 20 ms.
        Far => "20ms",
        /// The same, and 3 % of the packets get lost.
        Lossy => "20ms-3%",
    }
}

impl Workers {
    /// How many.
    #[must_use]
    pub fn count(self) -> u16 {
        match self {
            Self::One => 1,
            Self::Eight => 8,
        }
    }
}

/// A cell of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// The state.
    pub state: State,
    /// How the old queues are emptied.
    pub drain: Drain,
    /// What becomes of the old listeners.
    pub retire: Retire,
    /// The family.
    pub family: Family,
    /// How many workers.
    pub workers: Workers,
    /// How they accept.
    pub acceptor: Acceptor,
    /// The link.
    pub path: Path,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.names().join("/"))
    }
}

impl Cell {
    /// The values of its factors, as they are called.
    fn names(self) -> [&'static str; 7] {
        [
            self.state.name(),
            self.drain.name(),
            self.retire.name(),
            self.family.name(),
            self.workers.name(),
            self.acceptor.name(),
            self.path.name(),
        ]
    }
}

/// The whole table, so that its beginning has something of every row.
#[must_use]
pub fn all() -> Vec<Cell> {
    let mut cells = Vec::new();
    for &family in Family::ALL {
        for &workers in Workers::ALL {
            for &acceptor in Acceptor::ALL {
                cells.extend(rows().into_iter().map(|row| Cell {
                    family,
                    workers,
                    acceptor,
                    ..row
                }));
            }
        }
    }
    cells
}

/// A part of it that is the same each time: every state under every drain, retirement and link, and
/// any two values of any two factors together.
///
/// The other factors go round with the sum of the numbers of these four, of which each by itself
/// takes every value while the others stay; and with different steps, so that they meet each other.
#[must_use]
pub fn covering() -> Vec<Cell> {
    let mut cells = Vec::new();
    for row in rows() {
        let (state, drain) = (index(row.state), index(row.drain));
        let (retire, path) = (index(row.retire), index(row.path));
        let sum = state + drain + retire + path;
        cells.push(Cell {
            family: nth(sum),
            workers: nth(sum),
            acceptor: nth(state + drain + 2 * retire + path),
            ..row
        });
    }
    cells
}

/// Every state under every drain, retirement and link; the rest is as it comes.
fn rows() -> Vec<Cell> {
    let mut rows = Vec::new();
    for &state in State::ALL {
        for &drain in Drain::ALL {
            for &retire in Retire::ALL {
                for &path in Path::ALL {
                    rows.push(Cell {
                        state,
                        drain,
                        retire,
                        family: nth(0),
                        workers: nth(0),
                        acceptor: nth(0),
                        path,
                    });
                }
            }
        }
    }
    rows
}

fn index<F: Factor>(value: F) -> usize {
    let found = F::ALL.iter().position(|it| *it == value);
    found.unwrap_or_default()
}

fn nth<F: Factor>(number: usize) -> F {
    F::ALL[number % F::ALL.len()]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Every pair of values in one cell, by the factors' numbers.
    fn pairs(cells: &[Cell]) -> BTreeSet<(usize, &str, usize, &str)> {
        let mut pairs = BTreeSet::new();
        for cell in cells {
            let names = cell.names();
            for (first, a) in names.into_iter().enumerate() {
                for (second, b) in names.into_iter().enumerate().skip(first + 1) {
                    pairs.insert((first, a, second, b));
                }
            }
        }
        pairs
    }

    #[test]
    fn the_table_is_whole() {
        let cells = all();
        let names: BTreeSet<String> = cells.iter().map(Cell::to_string).collect();
        assert_eq!(names.len(), cells.len(), "two cells of one name");
        assert_eq!(cells.len(), 11 * Drain::ALL.len() * 3 * 3 * 2 * 3 * 3);
    }

    #[test]
    fn the_covering_part_has_every_row_and_every_pair() {
        let (whole, part) = (all(), covering());
        assert!(part.iter().all(|cell| whole.contains(cell)));
        let row = |cell: &Cell| {
            let [state, drain, retire, .., path] = cell.names();
            [state, drain, retire, path]
        };
        let rows = |cells: &[Cell]| cells.iter().map(row).collect::<BTreeSet<_>>();
        assert_eq!(rows(&part), rows(&whole));
        assert_eq!(part.len(), rows(&whole).len(), "no row twice");
        assert_eq!(pairs(&part), pairs(&whole));
    }
}
