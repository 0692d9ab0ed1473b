//! The thread that carries the packets of a link.

use std::{
    collections::VecDeque,
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{Control, Direction, LOSS_UNIT, LinkOptions, Slot, Verdict, line::Line};
use crate::sys::tun::Tun;

/// Packets taken from one end before the other gets its turn.
const BATCH: usize = 64;

/// Packets that a filter may hold back at a time, in both directions together.
const HELD_MAX: usize = 4096;

pub(super) struct Relay {
    ends: [Tun; 2],
    /// By the end at which its packets come in.
    lines: [Line; 2],
    held: VecDeque<(usize, Box<[u8]>)>,
    filter_version: u64,
    random: Random,
    /// As in [`LinkOptions`].
    loss: u32,
    control: Arc<Control>,
}

/// By the end at which a packet comes in: the server's, the client's.
const DIRECTIONS: [Direction; 2] = [Direction::ToClient, Direction::ToServer];

impl Relay {
    pub(super) fn new(ends: [Tun; 2], options: LinkOptions, control: Arc<Control>) -> Self {
        Self {
            ends,
            lines: [Line::new(options.delay), Line::new(options.delay)],
            held: VecDeque::new(),
            filter_version: 0,
            random: Random(options.seed),
            loss: options.loss,
            control,
        }
    }

    pub(super) fn run(mut self) {
        while !self.control.stop.load(Ordering::Acquire) {
            self.deliver();
            let readable = self.wait();
            let control = Arc::clone(&self.control);
            let mut slot = control.slot();
            self.judge_held(&mut slot);
            for (end, readable) in readable.into_iter().enumerate() {
                if readable {
                    self.take_in(end, &mut slot);
                }
            }
        }
    }

    /// Hands over what is due.
    fn deliver(&mut self) {
        let now = Instant::now();
        for (end, line) in self.lines.iter_mut().enumerate() {
            while line.due().is_some_and(|due| due <= now) {
                let counts = &self.control.counts;
                match self.ends[1 - end].write(line.front()) {
                    Ok(()) => count(&counts.delivered),
                    Err(_) => count(&counts.refused),
                }
                line.pop();
            }
        }
    }

    /// Waits until a packet is due, or comes in, or the link's owner has something to say, and tells
    /// at which ends there is something to take in.
    fn wait(&self) -> [bool; 2] {
        let timeout = self.lines.iter().filter_map(Line::due).min().map(|due| {
            Timespec::try_from(due.saturating_duration_since(Instant::now())).unwrap_or_default()
        });
        // An end whose line is full is not asked, or it would be readable all the time; the line
        // has a packet that comes due, so the wait is not for ever.
        let interest = |end: usize| {
            if self.lines[end].has_room() {
                PollFlags::IN
            } else {
                PollFlags::empty()
            }
        };
        let mut events = [
            PollFd::new(&self.ends[0], interest(0)),
            PollFd::new(&self.ends[1], interest(1)),
            PollFd::from_borrowed_fd(self.control.wake.as_fd(), PollFlags::IN),
        ];
        // Interrupted or not: the loop looks at everything anew.
        let _ = poll(&mut events, timeout.as_ref());
        let [server, client, wake] = events.map(|event| event.revents().contains(PollFlags::IN));
        if wake {
            let _ = rustix::io::read(&self.control.wake, &mut [0; 8]);
        }
        [server, client]
    }

    /// Shows the packets that are held to a filter that has not seen them.
    fn judge_held(&mut self, slot: &mut Slot) {
        if slot.version == self.filter_version {
            return;
        }
        self.filter_version = slot.version;
        for (end, packet) in std::mem::take(&mut self.held) {
            if !self.lines[end].has_room() {
                count(&self.control.counts.refused);
                continue;
            }
            self.lines[end].room()[..packet.len()].copy_from_slice(&packet);
            self.accept(end, packet.len(), Instant::now(), slot);
        }
    }

    fn take_in(&mut self, end: usize, slot: &mut Slot) {
        let now = Instant::now();
        for _ in 0..BATCH {
            if !self.lines[end].has_room() {
                return;
            }
            // An error is an empty queue, or a device that is down: nothing to take in either way.
            let Ok(length) = self.ends[end].read(self.lines[end].room()) else {
                return;
            };
            self.accept(end, length, now, slot);
        }
    }

    /// Decides what becomes of the packet in a line's room.
    fn accept(&mut self, end: usize, length: usize, now: Instant, slot: &mut Slot) {
        let line = &mut self.lines[end];
        let counts = &self.control.counts;
        let verdict = match &mut slot.filter {
            Some(filter) => filter(DIRECTIONS[end], &line.room()[..length]),
            None => Verdict::Pass,
        };
        match verdict {
            Verdict::Pass => {
                if self.random.hits(self.loss) {
                    count(&counts.lost);
                } else {
                    line.push(length, now);
                }
            }
            Verdict::Drop => count(&counts.dropped),
            Verdict::Hold if self.held.len() < HELD_MAX => {
                count(&counts.held);
                self.held.push_back((end, line.room()[..length].into()));
            }
            Verdict::Hold => count(&counts.refused),
        }
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// `SplitMix64`: good enough to lose packets by, and the same everywhere.
struct Random(u64);

impl Random {
    /// True in `loss` of [`LOSS_UNIT`] cases.
    fn hits(&mut self, loss: u32) -> bool {
        loss > 0 && self.next() % u64::from(LOSS_UNIT) < u64::from(loss)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_is_as_frequent_as_it_should_be_and_the_same_each_time() {
        let losses = |seed, loss| {
            let mut random = Random(seed);
            (0..100_000).filter(|_| random.hits(loss)).count()
        };
        assert_eq!(losses(1, 0), 0);
        assert_eq!(losses(1, LOSS_UNIT), 100_000);
        assert!((2_800..3_200).contains(&losses(1, 30_000)));
        assert_eq!(losses(7, 30_000), losses(7, 30_000));
    }
}
