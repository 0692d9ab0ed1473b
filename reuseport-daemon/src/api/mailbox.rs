//! The hand-over of a call from a connection's task to the driver.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::{
    permission::Scope,
    wire::{Failure, Reply, Request},
};
use crate::{
    domain::ProcessId,
    sys::passed::{Closer, Passed},
};

/// How a call ends.
pub type Answer = Result<Reply, Failure>;

/// Who calls, as the kernel attests it.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
    /// Supplementary groups (`SO_PEERGROUPS`).
    pub groups: Vec<u32>,
    /// The process that connected; none where it has ended, or is not visible in the daemon's pid
    /// namespace. Not the bare pid: a connection can be handed on, outlive who made it, and ask when
    /// that number is somebody else's.
    pub process: Option<ProcessId>,
}

/// A call on its way to the driver.
#[derive(Debug)]
pub struct Envelope {
    /// Who calls.
    pub caller: Caller,
    /// The services that the call may be about; calls that are about none do not get here.
    pub scope: Scope,
    /// What is asked.
    pub request: Request,
    /// The descriptors that came with the call, close-on-exec; none unless it is a `Register`.
    pub fds: Vec<Passed>,
    /// What closes them, and whatever else is duplicated to answer the call, before it is answered.
    pub closer: Arc<Closer>,
    /// Where the answer goes.
    pub replier: Replier,
}

/// A reply that is not the last one.
#[derive(Debug)]
pub struct Told {
    /// What it says.
    pub reply: Reply,
    /// The descriptor that goes with it.
    pub descriptor: Option<Arc<Passed>>,
}

/// Where the driver puts an answer. The caller may have gone away, which stops nothing.
#[derive(Debug)]
pub struct Replier {
    progress: mpsc::Sender<Told>,
    last: oneshot::Sender<Answer>,
}

/// The way to a caller that descriptors are handed to, for as long as its call lasts.
#[derive(Clone, Debug)]
pub struct Feed(mpsc::Sender<Told>);

impl Feed {
    /// How many replies a caller can be behind with.
    pub const ROOM: usize = 16;

    /// Puts a reply and its descriptor on their way. False where the caller has gone, or there is
    /// no room; then neither will ever get there.
    #[must_use]
    pub fn hand_over(&self, reply: Reply, descriptor: Arc<Passed>) -> bool {
        let descriptor = Some(descriptor);
        self.0.try_send(Told { reply, descriptor }).is_ok()
    }
}

impl Replier {
    /// A replier, and the two ends that the connection's task listens at.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Told>, oneshot::Receiver<Answer>) {
        let (progress, progress_end) = mpsc::channel(Feed::ROOM);
        let (last, last_end) = oneshot::channel();
        (Self { progress, last }, progress_end, last_end)
    }

    /// Tells how far it has come.
    pub fn progress(&self, reply: Reply) {
        // A full channel is a client that does not read; it will see the end all the same.
        let descriptor = None;
        let _ = self.progress.try_send(Told { reply, descriptor });
    }

    /// A way to hand descriptors to the caller.
    #[must_use]
    pub fn feed(&self) -> Feed {
        Feed(self.progress.clone())
    }

    /// Whether nobody waits for the answer any more.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        self.last.is_closed()
    }

    /// Resolves when nobody waits for the answer any more.
    pub async fn abandoned(&self) {
        // The connection lets go of both ends at once.
        self.progress.closed().await;
    }

    /// Ends the call.
    pub fn finish(self, answer: Answer) {
        // An error means that the client has gone.
        let _ = self.last.send(answer);
    }
}
