//! One direction of a link: packets in the order in which they came, each with the moment at which
//! it is due at the other end.

use std::time::{Duration, Instant};

use super::MTU;

/// Packets per second for which a line has room, whatever its delay.
const RATE: u128 = 50_000;

/// Least number of packets for which a line has room.
const SLOTS_MIN: usize = 256;

/// A queue of packets in memory of its own that is allocated once.
#[derive(Debug)]
pub(super) struct Line {
    delay: Duration,
    bytes: Box<[u8]>,
    packets: Box<[Packet]>,
    first: usize,
    count: usize,
}

#[derive(Clone, Copy, Debug)]
struct Packet {
    due: Instant,
    length: usize,
}

impl Line {
    pub(super) fn new(delay: Duration) -> Self {
        let under_way = usize::try_from(RATE * delay.as_micros() / 1_000_000).unwrap_or(usize::MAX);
        let slots = under_way.max(SLOTS_MIN);
        let empty = Packet {
            due: Instant::now(),
            length: 0,
        };
        Self {
            delay,
            bytes: vec![0; slots * usize::from(MTU)].into(),
            packets: vec![empty; slots].into(),
            first: 0,
            count: 0,
        }
    }

    /// Whether there is room for one more packet. Where there is none, the kernel keeps it.
    pub(super) fn has_room(&self) -> bool {
        self.count < self.packets.len()
    }

    /// The room for the next packet, which [`Line::push`] then takes in.
    pub(super) fn room(&mut self) -> &mut [u8] {
        let start = self.slot(self.count) * usize::from(MTU);
        &mut self.bytes[start..start + usize::from(MTU)]
    }

    /// Takes in the packet of `length` bytes that was put into the room.
    pub(super) fn push(&mut self, length: usize, now: Instant) {
        self.packets[self.slot(self.count)] = Packet {
            due: now + self.delay,
            length,
        };
        self.count += 1;
    }

    /// When the first packet is due.
    pub(super) fn due(&self) -> Option<Instant> {
        (self.count > 0).then(|| self.packets[self.first].due)
    }

    /// The first packet.
    pub(super) fn front(&self) -> &[u8] {
        let start = self.first * usize::from(MTU);
        &self.bytes[start..start + self.packets[self.first].length]
    }

    /// Lets go of the first packet.
    pub(super) fn pop(&mut self) {
        self.first = self.slot(1);
        self.count -= 1;
    }

    fn slot(&self, offset: usize) -> usize {
        (self.first + offset) % self.packets.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_in_first_out_each_at_its_time() {
        let delay = Duration::from_millis(10);
        let mut line = Line::new(delay);
        let start = Instant::now();
        for round in 0..3_u32 {
            let mut pushed = 0_u8;
            while line.has_room() {
                line.room()[0] = pushed;
                line.push(1 + usize::from(pushed), start + round * delay);
                pushed = pushed.wrapping_add(1);
            }
            let mut popped = 0_u8;
            while let Some(due) = line.due() {
                assert_eq!(due, start + (round + 1) * delay);
                assert_eq!(line.front()[0], popped);
                assert_eq!(line.front().len(), 1 + usize::from(popped));
                line.pop();
                popped = popped.wrapping_add(1);
            }
            assert_eq!(pushed, popped);
        }
    }

    #[test]
    fn room_grows_with_the_delay() {
        assert_eq!(Line::new(Duration::ZERO).packets.len(), SLOTS_MIN);
        assert_eq!(Line::new(Duration::from_millis(100)).packets.len(), 5000);
    }
}
