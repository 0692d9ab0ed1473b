//! As much of an IP packet as a filter needs.

const TCP: u8 = 6;
const FIN: u8 = 1;
const SYN: u8 = 1 << 1;
const RST: u8 = 1 << 2;
const ACK: u8 = 1 << 4;

/// A TCP segment in an IPv4 or IPv6 packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Port of the sender.
    pub source: u16,
    /// Port of the receiver.
    pub destination: u16,
    /// How many bytes of data it carries.
    pub data: usize,
    flags: u8,
}

impl Segment {
    /// Reads a packet's headers. `None` for what is no TCP, for fragments, and for IPv6 packets with
    /// extension headers, which Linux does not send of its own accord.
    #[must_use]
    pub fn parse(packet: &[u8]) -> Option<Self> {
        let (protocol, start, end) = match packet.first()? >> 4 {
            4 => {
                let fragment = u16_at(packet, 6)? & 0x3fff;
                if fragment != 0 {
                    return None;
                }
                let header = usize::from(packet[0] & 0xf) * 4;
                (*packet.get(9)?, header, usize::from(u16_at(packet, 2)?))
            }
            6 => {
                let payload = usize::from(u16_at(packet, 4)?);
                (*packet.get(6)?, 40, 40 + payload)
            }
            _ => return None,
        };
        if protocol != TCP {
            return None;
        }
        let segment = packet.get(start..end)?;
        let header = usize::from(segment.get(12)? >> 4) * 4;
        Some(Self {
            source: u16_at(segment, 0)?,
            destination: u16_at(segment, 2)?,
            data: segment.len().checked_sub(header)?,
            flags: *segment.get(13)?,
        })
    }

    /// Whether it asks for a connection.
    #[must_use]
    pub fn is_syn(&self) -> bool {
        self.flags & (SYN | ACK) == SYN
    }

    /// Whether it answers such a request.
    #[must_use]
    pub fn is_syn_ack(&self) -> bool {
        self.flags & (SYN | ACK) == SYN | ACK
    }

    /// Whether it acknowledges and does nothing else, as the last step of a handshake does.
    #[must_use]
    pub fn is_bare_ack(&self) -> bool {
        self.flags & (SYN | ACK | FIN | RST) == ACK && self.data == 0
    }

    /// Whether it is a reset.
    #[must_use]
    pub fn is_reset(&self) -> bool {
        self.flags & RST != 0
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let pair = bytes.get(at..at + 2)?;
    Some(u16::from_be_bytes([pair[0], pair[1]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(flags: u8, data: usize) -> Vec<u8> {
        let mut segment = vec![0; 20 + data];
        segment[..4].copy_from_slice(&[0x9c, 0x40, 0x1e, 0x61]);
        segment[12] = 5 << 4;
        segment[13] = flags;
        segment
    }

    fn v4(segment: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; 24];
        packet[0] = 0x46;
        packet[3] = u8::try_from(24 + segment.len()).expect("small");
        packet[6] = 0x40;
        packet[9] = TCP;
        packet.extend(segment);
        packet
    }

    fn v6(segment: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; 40];
        packet[0] = 0x60;
        packet[5] = u8::try_from(segment.len()).expect("small");
        packet[6] = TCP;
        packet.extend(segment);
        packet
    }

    #[test]
    fn both_families_read_alike() {
        for wrap in [v4, v6] {
            let syn = Segment::parse(&wrap(&tcp(SYN, 0))).expect("syn");
            assert!(syn.is_syn() && !syn.is_syn_ack() && !syn.is_bare_ack());
            assert_eq!((syn.source, syn.destination), (40_000, 7777));
            let ack = Segment::parse(&wrap(&tcp(ACK, 0))).expect("ack");
            assert!(ack.is_bare_ack() && !ack.is_syn());
            let data = Segment::parse(&wrap(&tcp(ACK, 16))).expect("data");
            assert!(!data.is_bare_ack());
            assert_eq!(data.data, 16);
            let answer = Segment::parse(&wrap(&tcp(SYN | ACK, 0))).expect("syn-ack");
            assert!(answer.is_syn_ack() && !answer.is_syn() && !answer.is_bare_ack());
            assert!(
                Segment::parse(&wrap(&tcp(RST | ACK, 0)))
                    .expect("reset")
                    .is_reset()
            );
        }
    }

    #[test]
    fn what_is_no_whole_segment_is_none() {
        let whole = v4(&tcp(ACK, 8));
        for length in 0..whole.len() {
            assert_eq!(Segment::parse(&whole[..length]), None, "{length} bytes");
        }
        let mut fragment = whole.clone();
        fragment[7] = 1;
        assert_eq!(Segment::parse(&fragment), None);
        let mut udp = whole;
        udp[9] = 17;
        assert_eq!(Segment::parse(&udp), None);
    }
}
