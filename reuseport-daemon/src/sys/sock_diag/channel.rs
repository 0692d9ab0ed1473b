//! The netlink socket: one question, and all of its answer.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
};

use netlink_packet_core::{
    DecodeError, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR,
    NetlinkBuffer, NetlinkHeader, NetlinkMessage, Parseable,
};
use netlink_packet_sock_diag::{
    SOCK_DIAG_BY_FAMILY, SockDiagMessage,
    inet::{InetRequest, InetResponseBuffer, InetResponseHeader},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG};

use super::{SockDiagError, rows::Row};

/// The kernel makes datagrams of up to 32 KiB for a reader that has room for them.
/// <https://elixir.bootlin.com/linux/v6.18/source/net/netlink/af_netlink.c>
const BUFFER: usize = 64 * 1024;

/// Whether a dump has had to go on where it had left off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seams {
    /// Everything came in one piece.
    None,
    /// It came in several, or the kernel itself says that the table changed.
    Some,
}

/// A netlink socket that talks to the kernel alone.
#[derive(Debug)]
pub(super) struct Channel {
    socket: Socket,
    buffer: Box<[u8]>,
    sequence: u32,
}

impl Channel {
    pub(super) fn open() -> Result<Self, SockDiagError> {
        let failed = |call| move |source| SockDiagError::Call { call, source };
        let socket = Socket::new(NETLINK_SOCK_DIAG).map_err(failed("socket(NETLINK_SOCK_DIAG)"))?;
        // A connected netlink socket takes no messages from other processes.
        socket
            .connect(&SocketAddr::new(0, 0))
            .map_err(failed("connect(NETLINK_SOCK_DIAG)"))?;
        Ok(Self {
            socket,
            buffer: vec![0; BUFFER].into_boxed_slice(),
            sequence: 0,
        })
    }

    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Asks, and calls `row` with each socket of the answer. The answer is read to its end even
    /// where part of it is malformed, so that the next question finds the socket empty.
    pub(super) fn dump(
        &mut self,
        request: &InetRequest,
        mut row: impl FnMut(Row<'_>) -> Result<(), DecodeError>,
    ) -> Result<Seams, SockDiagError> {
        self.send(request, NLM_F_DUMP)?;
        let mut answer = Answer::new(self.sequence);
        loop {
            let length = self.receive()?;
            match answer.take(&self.buffer[..length], &mut row)? {
                Progress::More => {}
                Progress::Done => break,
            }
        }
        let answer = answer.sound()?;
        if answer.datagrams > 1 || answer.interrupted {
            Ok(Seams::Some)
        } else {
            Ok(Seams::None)
        }
    }

    /// Asks for one socket, and calls `row` with it if it is there.
    pub(super) fn one(
        &mut self,
        request: &InetRequest,
        mut row: impl FnMut(Row<'_>) -> Result<(), DecodeError>,
    ) -> Result<(), SockDiagError> {
        self.send(request, 0)?;
        let mut answer = Answer::new(self.sequence);
        // Either the socket or an error comes; an acknowledgement was not asked for.
        while !answer.begun {
            let length = self.receive()?;
            match answer.take(&self.buffer[..length], &mut row) {
                // How the kernel says that there is no such socket.
                Ok(_) | Err(SockDiagError::NoModule) => {}
                Err(error) => return Err(error),
            }
        }
        answer.sound()?;
        Ok(())
    }

    fn send(&mut self, request: &InetRequest, flags: u16) -> Result<(), SockDiagError> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let request = SockDiagMessage::InetRequest(request.clone());
        let mut message = NetlinkMessage::new(header, request.into());
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        retry(|| self.socket.send(&bytes, 0)).map_err(|source| SockDiagError::Call {
            call: "send(NETLINK_SOCK_DIAG)",
            source,
        })?;
        Ok(())
    }

    /// The next datagram. It is always there already: the kernel makes the first one while it takes
    /// the question, and each further one while the one before is received. So there is nothing to
    /// wait for, and EAGAIN means that it has given up.
    fn receive(&mut self) -> Result<usize, SockDiagError> {
        let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
        let length = retry(|| self.socket.recv(&mut &mut self.buffer[..], flags))
            .map_err(SockDiagError::BrokenOff)?;
        if length > self.buffer.len() {
            let error = io::Error::from(io::ErrorKind::FileTooLarge);
            return Err(SockDiagError::BrokenOff(error));
        }
        Ok(length)
    }
}

/// What has been read of an answer.
struct Answer {
    sequence: u32,
    /// Whether any message of it has come.
    begun: bool,
    /// How many datagrams had sockets in them.
    datagrams: usize,
    interrupted: bool,
    fault: Option<DecodeError>,
}

enum Progress {
    More,
    Done,
}

impl Answer {
    fn new(sequence: u32) -> Self {
        Self {
            sequence,
            begun: false,
            datagrams: 0,
            interrupted: false,
            fault: None,
        }
    }

    fn sound(mut self) -> Result<Self, SockDiagError> {
        match self.fault.take() {
            None => Ok(self),
            Some(fault) => Err(SockDiagError::Malformed(fault)),
        }
    }

    fn take(
        &mut self,
        datagram: &[u8],
        row: &mut impl FnMut(Row<'_>) -> Result<(), DecodeError>,
    ) -> Result<Progress, SockDiagError> {
        let mut rest = datagram;
        let mut rows = false;
        let mut progress = Progress::More;
        while !rest.is_empty() {
            let message = match NetlinkBuffer::new_checked(rest) {
                Ok(message) => message,
                Err(fault) => {
                    self.fault.get_or_insert(fault);
                    break;
                }
            };
            rest = rest.get(aligned(message.length())..).unwrap_or_default();
            // Left over from a question whose answer was not read to its end.
            if message.sequence_number() != self.sequence {
                continue;
            }
            self.begun = true;
            self.interrupted |= message.flags() & NLM_F_DUMP_INTR != 0;
            match message.message_type() {
                SOCK_DIAG_BY_FAMILY => {
                    rows = true;
                    if let Err(fault) = parse(message.payload()).and_then(&mut *row) {
                        self.fault.get_or_insert(fault);
                    }
                }
                NLMSG_DONE | NLMSG_ERROR => {
                    check(message.payload())?;
                    progress = Progress::Done;
                }
                // NLMSG_NOOP, and whatever else a later kernel may send along.
                _ => {}
            }
        }
        self.datagrams += usize::from(rows);
        Ok(progress)
    }
}

fn parse(payload: &[u8]) -> Result<Row<'_>, DecodeError> {
    Ok(Row {
        header: InetResponseHeader::parse(payload)?,
        attributes: payload
            .get(size_of::<InetResponseBuffer>()..)
            .unwrap_or_default(),
    })
}

/// Both kinds of last message begin with an error number, negative or 0. A last message without one
/// is a success.
fn check(payload: &[u8]) -> Result<(), SockDiagError> {
    let code = payload
        .first_chunk()
        .map_or(0, |bytes| i32::from_ne_bytes(*bytes));
    match code.wrapping_neg() {
        0 => Ok(()),
        libc::ENOENT => Err(SockDiagError::NoModule),
        code => Err(SockDiagError::Call {
            call: "SOCK_DIAG_BY_FAMILY",
            source: io::Error::from_raw_os_error(code),
        }),
    }
}

/// Messages start at multiples of four.
fn aligned(length: u32) -> usize {
    usize::try_from(length)
        .unwrap_or(usize::MAX)
        .saturating_add(3)
        & !3
}

fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::{NLMSG_NOOP, NLMSG_OVERRUN};
    use netlink_packet_sock_diag::constants::AF_INET;

    use super::*;

    fn message(kind: u16, flags: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(16 + payload.len()).expect("short");
        let mut bytes = Vec::new();
        bytes.extend(length.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend(0_u32.to_ne_bytes());
        bytes.extend(payload);
        bytes.resize(aligned(length), 0);
        bytes
    }

    fn socket() -> Vec<u8> {
        let mut payload = vec![0; size_of::<InetResponseBuffer>()];
        payload[0] = AF_INET;
        message(SOCK_DIAG_BY_FAMILY, 2, 7, &payload)
    }

    fn done() -> Vec<u8> {
        message(NLMSG_DONE, 2, 7, &0_i32.to_ne_bytes())
    }

    /// How many rows came, whether the answer has ended, and whether it is sound.
    fn take(datagrams: &[&[Vec<u8>]]) -> (usize, bool, Answer) {
        let mut answer = Answer::new(7);
        let mut rows = 0;
        let mut ended = false;
        for datagram in datagrams {
            let progress = answer.take(&datagram.concat(), &mut |_| {
                rows += 1;
                Ok(())
            });
            ended = matches!(progress.expect("no error"), Progress::Done);
        }
        (rows, ended, answer)
    }

    #[test]
    fn rows_are_counted_by_datagram() {
        let (rows, ended, answer) = take(&[&[socket(), socket()], &[done()]]);
        assert_eq!((rows, ended, answer.datagrams), (2, true, 1));
        let (rows, ended, answer) = take(&[&[socket()], &[socket(), done()]]);
        assert_eq!((rows, ended, answer.datagrams), (2, true, 2));
        assert!(!answer.interrupted && answer.fault.is_none());
    }

    #[test]
    fn other_answers_and_other_messages_are_passed_over() {
        let mut stale = socket();
        stale[8] ^= 1;
        let noop = message(NLMSG_NOOP, 0, 7, &[]);
        let overrun = message(NLMSG_OVERRUN, 0, 7, &[1, 2, 3]);
        let (rows, ended, _) = take(&[&[stale, noop, overrun, socket(), done()]]);
        assert_eq!((rows, ended), (1, true));
    }

    #[test]
    fn an_interrupted_dump_is_noticed() {
        let last = message(NLMSG_DONE, 2 | NLM_F_DUMP_INTR, 7, &[]);
        let (_, ended, answer) = take(&[&[socket(), last]]);
        assert!(ended && answer.interrupted);
    }

    #[test]
    fn a_malformed_message_is_a_fault_and_the_rest_is_read() {
        let short = message(SOCK_DIAG_BY_FAMILY, 2, 7, &[AF_INET; 20]);
        let mut odd_family = socket();
        odd_family[16] = 99;
        for bad in [short, odd_family, vec![1, 2, 3], vec![0; 16], vec![255; 40]] {
            let (_, ended, answer) = take(&[&[socket(), bad], &[done()]]);
            assert!(ended && answer.fault.is_some());
        }
    }

    #[test]
    fn any_cut_of_an_answer_is_survived() {
        let whole = [socket(), socket(), done()].concat();
        for length in 0..whole.len() {
            take(&[&[whole[..length].to_vec()]]);
        }
    }

    #[test]
    fn an_error_ends_it() {
        let mut answer = Answer::new(7);
        for (code, missing) in [
            (libc::ENOENT, true),
            (libc::EPERM, false),
            (i32::MIN, false),
        ] {
            for kind in [NLMSG_ERROR, NLMSG_DONE] {
                let message = message(kind, 0, 7, &code.wrapping_neg().to_ne_bytes());
                let result = answer.take(&message, &mut |_| Ok(()));
                let error = result.err().expect("an error");
                assert_eq!(matches!(error, SockDiagError::NoModule), missing);
                assert_eq!(matches!(error, SockDiagError::Call { .. }), !missing);
            }
        }
    }
}
