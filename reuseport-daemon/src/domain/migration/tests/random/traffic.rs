//! Connections on their way to being accepted.

/// Connections of an instance that nobody has accepted yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Traffic {
    /// SYNs that saw the old table, and are no handshake yet. A grace period ends that.
    pub(super) arriving: u64,
    pub(super) half_open: u64,
    /// Handshakes that have ended, and are in no queue yet. A grace period ends that.
    pub(super) landing: u64,
    pub(super) queued: u64,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Flow {
    Arrive,
    Complete,
    Land,
    Accept,
}

impl Traffic {
    pub(super) const NONE: Self = Self {
        arriving: 0,
        half_open: 0,
        landing: 0,
        queued: 0,
    };

    pub(super) fn flow(&mut self, flow: Flow) {
        let mut accepted = 0;
        let (from, to) = match flow {
            Flow::Arrive => (&mut self.arriving, &mut self.half_open),
            Flow::Complete => (&mut self.half_open, &mut self.landing),
            Flow::Land => (&mut self.landing, &mut self.queued),
            Flow::Accept => (&mut self.queued, &mut accepted),
        };
        if *from > 0 {
            *from -= 1;
            *to += 1;
        }
    }

    pub(super) fn pass_grace_period(&mut self) {
        self.half_open += std::mem::take(&mut self.arriving);
        self.queued += std::mem::take(&mut self.landing);
    }
}
