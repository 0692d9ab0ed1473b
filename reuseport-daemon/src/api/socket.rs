//! The transport under zlink: a Unix stream socket that takes descriptors close-on-exec, notices
//! those that were lost, and bounds what a peer can make this process hold.

use std::{
    collections::VecDeque,
    io,
    os::fd::AsFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use thiserror::Error;
use tokio::{
    io::Interest,
    time::{Instant, timeout_at},
};
use zlink::connection::{
    PassedCredentials,
    socket::{ReadHalf, ReadResult, Socket, WriteHalf},
};

use super::line::Line;
use crate::sys::{
    passed::{Closer, Passed},
    readiness, unix_socket,
};

/// The most descriptors that one call may bring. It is half of what the kernel lets through at
/// once, so that one call too many is still told apart from one that was cut short, and it is far
/// from the usual limit of 1,024 open files. An instance with more listeners registers by pid.
pub const MAX_DESCRIPTORS: usize = 128;

/// What a peer may send.
#[derive(Clone, Copy, Debug)]
pub(super) struct MessageLimits {
    /// The longest message, in bytes without its NUL.
    pub(super) bytes: usize,
    /// How long a message that has begun may take to arrive, if that is bounded.
    pub(super) stall: Option<Duration>,
}

/// A message that cannot be taken. The rest of it is still on the way, so that nothing more can be
/// understood on this connection.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum SocketFault {
    /// More bytes than [`MessageLimits::bytes`].
    #[error("a message is longer than {max} bytes")]
    TooLong {
        /// The longest that is taken.
        max: usize,
    },
    /// More than [`MAX_DESCRIPTORS`].
    #[error("a message brings {got} or more descriptors")]
    TooManyDescriptors {
        /// How many had arrived.
        got: usize,
    },
    /// `MSG_CTRUNC`.
    #[error("descriptors of a message were lost")]
    DescriptorsLost,
    /// Longer than [`MessageLimits::stall`].
    #[error("a message has begun and does not end")]
    Stalled,
}

impl SocketFault {
    /// The fault that made zlink's `receive` fail, if it was one.
    #[must_use]
    pub(super) fn behind(error: &zlink::Error) -> Option<&Self> {
        let zlink::Error::Io(error) = error else {
            return None;
        };
        error.get_ref()?.downcast_ref()
    }
}

impl From<SocketFault> for zlink::Error {
    fn from(fault: SocketFault) -> Self {
        Self::Io(io::Error::other(fault))
    }
}

/// A connected Unix stream socket.
#[derive(Debug)]
pub(super) struct ControlSocket {
    line: Line,
    limits: MessageLimits,
}

impl ControlSocket {
    /// Wraps a connection whose other end may send what `limits` allow.
    #[must_use]
    pub(super) fn new(line: Line, limits: MessageLimits) -> Self {
        Self { line, limits }
    }

    /// What closes the descriptors that come.
    pub(super) fn closer(&self) -> &Arc<Closer> {
        self.line.closer()
    }
}

impl Socket for ControlSocket {
    type ReadHalf = ControlReader;
    type WriteHalf = ControlWriter;

    const CAN_TRANSFER_FDS: bool = true;

    fn split(self) -> (ControlReader, ControlWriter) {
        let line = Arc::new(self.line);
        let reader = ControlReader {
            line: Arc::clone(&line),
            limits: self.limits,
            message: Begun::default(),
            arrived: Mutex::default(),
        };
        (reader, ControlWriter(line))
    }
}

/// The receiving half.
#[derive(Debug)]
pub(super) struct ControlReader {
    line: Arc<Line>,
    limits: MessageLimits,
    message: Begun,
    arrived: Mutex<Arrived>,
}

/// The descriptors that have arrived. zlink does not get them, since it would close them where it
/// stands.
#[derive(Debug, Default)]
struct Arrived {
    /// Each with the number of its message.
    descriptors: VecDeque<(u64, Passed)>,
    /// How many messages have arrived whole.
    ended: u64,
    /// How many of them have been asked for their descriptors.
    taken: u64,
}

impl Arrived {
    /// Keeps what came with one read, for the message of its last byte.
    fn keep(&mut self, bytes: &[u8], descriptors: Vec<Passed>) {
        let Some((last, before)) = bytes.split_last() else {
            return;
        };
        self.ended += before.iter().map(|byte| u64::from(*byte == 0)).sum::<u64>();
        let numbered = descriptors.into_iter().map(|it| (self.ended, it));
        self.descriptors.extend(numbered);
        self.ended += u64::from(*last == 0);
    }

    /// Those of the first message that has not been asked for them.
    fn take(&mut self) -> Vec<Passed> {
        let number = self.taken;
        self.taken += 1;
        let count = self.descriptors.partition_point(|it| it.0 <= number);
        self.descriptors.drain(..count).map(|it| it.1).collect()
    }
}

impl ControlReader {
    /// The descriptors of the message that was received last. To be asked once for each, be it
    /// understood or not.
    pub(super) fn descriptors(&self) -> Vec<Passed> {
        self.arrived().take()
    }

    /// How many descriptors have arrived ahead of their message: the kernel lets a read go on into
    /// the first data that brings some.
    pub(super) fn descriptors_ahead(&self) -> usize {
        self.arrived().descriptors.len()
    }

    fn arrived(&self) -> MutexGuard<'_, Arrived> {
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What has arrived of the message that has not ended yet.
#[derive(Debug, Default)]
struct Begun {
    bytes: usize,
    descriptors: usize,
    since: Option<Instant>,
}

impl Begun {
    /// Counts what one `recvmsg` brought. Its descriptors belong to the message of its last byte:
    /// the kernel ends a read with the data that descriptors came with (`unix_stream_read_generic`,
    /// <https://elixir.bootlin.com/linux/v6.18/source/net/unix/af_unix.c>).
    fn take(
        &mut self,
        bytes: &[u8],
        descriptors: usize,
        limits: &MessageLimits,
    ) -> Result<(), SocketFault> {
        let Some((last, before)) = bytes.split_last() else {
            return Ok(());
        };
        let mut ends = before.split(|byte| *byte == 0);
        // `split` yields at least one part, which continues the message that has begun.
        let longest = ends
            .next()
            .map(|first| self.bytes + first.len())
            .into_iter()
            .chain(ends.map(<[u8]>::len))
            .max();
        match before.iter().rposition(|byte| *byte == 0) {
            Some(end) => {
                *self = Self {
                    bytes: before.len() - end - 1,
                    ..Self::default()
                }
            }
            None => self.bytes += before.len(),
        }
        self.bytes += usize::from(*last != 0);
        self.descriptors += descriptors;
        if longest.max(Some(self.bytes)) > Some(limits.bytes) {
            return Err(SocketFault::TooLong { max: limits.bytes });
        }
        if self.descriptors > MAX_DESCRIPTORS {
            let got = self.descriptors;
            return Err(SocketFault::TooManyDescriptors { got });
        }
        if *last == 0 {
            *self = Self::default();
        } else {
            self.since.get_or_insert_with(Instant::now);
        }
        Ok(())
    }
}

impl ReadHalf for ControlReader {
    async fn read(&mut self, buffer: &mut [u8]) -> zlink::Result<ReadResult> {
        let stream = self.line.stream()?;
        let deadline = self
            .message
            .since
            .zip(self.limits.stall)
            .map(|(since, stall)| since + stall);
        let receive = stream.async_io(Interest::READABLE, || unix_socket::receive(stream, buffer));
        let received = match deadline {
            Some(deadline) => timeout_at(deadline, receive)
                .await
                .map_err(|_| SocketFault::Stalled)?,
            None => receive.await,
        }?;
        let passed = received.fds.into_iter();
        let passed: Vec<_> = passed
            .map(|it| Passed::new(it, self.line.closer()))
            .collect();
        if received.truncated {
            return Err(SocketFault::DescriptorsLost.into());
        }
        let bytes = &buffer[..received.bytes];
        self.message.take(bytes, passed.len(), &self.limits)?;
        let arrived = self.arrived.get_mut();
        let arrived = arrived.unwrap_or_else(PoisonError::into_inner);
        arrived.keep(bytes, passed);
        Ok(ReadResult::new(received.bytes))
    }
}

/// The sending half.
#[derive(Debug)]
pub(super) struct ControlWriter(Arc<Line>);

impl ControlWriter {
    /// Resolves when the other end has closed the connection.
    ///
    /// # Errors
    ///
    /// Where there is no room for one more descriptor to watch.
    pub(super) fn hang_up(&self) -> io::Result<impl Future<Output = ()> + use<>> {
        readiness::hang_up(self.0.stream()?.as_fd().try_clone_to_owned()?)
    }
}

impl WriteHalf for ControlWriter {
    async fn write(
        &mut self,
        bytes: &[u8],
        fds: &[impl AsFd],
        credentials: Option<&PassedCredentials>,
    ) -> zlink::Result<()> {
        // The peer asks the kernel (SO_PEERCRED); nothing here has credentials to pass.
        debug_assert!(credentials.is_none());
        let stream = self.0.stream()?;
        let mut fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        let mut rest = bytes;
        while !rest.is_empty() {
            let sent = stream
                .async_io(Interest::WRITABLE, || unix_socket::send(stream, rest, &fds))
                .await?;
            rest = &rest[sent..];
            fds.clear();
        }
        Ok(())
    }
}

impl ControlWriter {
    /// Sends one message, with a descriptor if there is one.
    ///
    /// zlink's `WriteConnection` serialises into a buffer that it grows by 256 bytes, from the
    /// start again each time: quadratic, which a status of many services would pay for in seconds.
    ///
    /// # Errors
    ///
    /// Those of `sendmsg`, and of serialising.
    pub(super) async fn send<T: serde::Serialize>(
        &mut self,
        message: &T,
        descriptor: Option<&Passed>,
    ) -> zlink::Result<()> {
        let mut bytes = serde_json::to_vec(message)?;
        bytes.push(0);
        let descriptors: Vec<_> = descriptor.iter().map(AsFd::as_fd).collect();
        self.write(&bytes, &descriptors, None).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: MessageLimits = MessageLimits {
        bytes: 8,
        stall: None,
    };

    fn taken(begun: &mut Begun, bytes: &[u8], descriptors: usize) -> Result<(), SocketFault> {
        begun.take(bytes, descriptors, &LIMITS)
    }

    #[test]
    fn a_message_may_be_as_long_as_the_limit() {
        let mut begun = Begun::default();
        assert_eq!(taken(&mut begun, b"12345678\0", 0), Ok(()));
        assert_eq!(taken(&mut begun, b"1234", 0), Ok(()));
        assert_eq!(taken(&mut begun, b"5678", 0), Ok(()));
        assert_eq!(taken(&mut begun, b"\0", 0), Ok(()));
        assert!(begun.since.is_none());
        let too_long = Err(SocketFault::TooLong { max: 8 });
        assert_eq!(taken(&mut Begun::default(), b"123456789", 0), too_long);
        assert_eq!(taken(&mut Begun::default(), b"123456789\0", 0), too_long);
        assert_eq!(
            taken(&mut Begun::default(), b"1\x00123456789\x002", 0),
            too_long
        );
        assert_eq!(taken(&mut begun, b"1234", 0), Ok(()));
        assert_eq!(taken(&mut begun, b"56789\0", 0), too_long);
    }

    #[test]
    fn descriptors_count_for_the_message_of_the_last_byte() {
        let mut begun = Begun::default();
        assert_eq!(taken(&mut begun, b"a", MAX_DESCRIPTORS), Ok(()));
        assert_eq!(taken(&mut begun, b"b\0c", MAX_DESCRIPTORS), Ok(()));
        assert_eq!(taken(&mut begun, b"\0", 0), Ok(()));
        assert_eq!(taken(&mut begun, b"a", MAX_DESCRIPTORS), Ok(()));
        assert_eq!(
            taken(&mut begun, b"b", 1),
            Err(SocketFault::TooManyDescriptors {
                got: MAX_DESCRIPTORS + 1
            })
        );
    }
}
