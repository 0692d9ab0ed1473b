//! The ledger: what became of every request. A third of the file is its tests.
//!
//! A request is entered before its first packet, which gives a [`Ticket`], and the ticket is used up
//! by the one fate that it is entered with: no id can be settled twice, and what was never settled
//! is the difference of two counts. So nothing needs to be kept per request, and millions cost no
//! more memory than a few.
//!
//! For "whoever came after the switch was answered by the new instance" time is cut by [`Mark`]s. A
//! request that began under a mark began after everything that was done before the mark was made,
//! and one that ended under an earlier mark had ended before it was made.

use std::{
    collections::BTreeMap,
    fmt,
    ops::Range,
    time::{Duration, Instant},
};

use thiserror::Error;

use super::{
    latency::Latencies,
    wire::{RequestId, Tag},
};

/// How many losses are kept in full; the rest are counted.
const LOSSES_KEPT: usize = 1000;

/// Ids of one client lie this many bits apart.
const CLIENT_SHIFT: u32 = 40;

/// A moment between things that a test does. The first is `Mark::default()`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark(pub u32);

/// A request that has no fate yet.
#[derive(Debug)]
#[must_use = "a ticket that is not settled counts as a request without an answer"]
pub struct Ticket {
    id: RequestId,
    began: Mark,
    started: Instant,
}

impl Ticket {
    /// The request's id.
    #[must_use]
    pub fn id(&self) -> RequestId {
        self.id
    }
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Answered, completely and with its own id, by the server of that label.
    Answered(Tag),
    /// Not answered.
    Lost(LossKind),
}

/// How a request was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LossKind {
    /// Nobody listened.
    Refused,
    /// A reset, at whatever step.
    Reset,
    /// No step for as long as a step may take.
    TimedOut,
    /// The connection ended before the answer did.
    Eof,
    /// An answer to another request, more than one answer, or one by another process than before.
    Wrong,
}

impl fmt::Display for LossKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::TimedOut => "timed out",
            Self::Eof => "ended early",
            Self::Wrong => "answered wrongly",
        })
    }
}

/// A request that was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Which.
    pub id: RequestId,
    /// How.
    pub kind: LossKind,
    /// The mark under which it began.
    pub began: Mark,
    /// When it began.
    pub started: Instant,
    /// When the client knew.
    pub when: Instant,
}

/// A ledger that does not say what it should.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LedgerError {
    /// Requests were lost.
    #[error("{lost} of {begun} requests lost: {kinds}")]
    Lost {
        /// How many requests there were.
        begun: u64,
        /// How many of them were lost.
        lost: u64,
        /// How many in which way.
        kinds: String,
    },
    /// Requests have no fate.
    #[error("{0} requests were never settled")]
    Unsettled(u64),
    /// Requests were answered by another instance than the one that served.
    #[error("{strayed} of {total} requests between {from:?} and {to:?} not answered by {expected}")]
    Strayed {
        /// How many.
        strayed: u64,
        /// Of how many.
        total: u64,
        /// Who should have answered.
        expected: Tag,
        /// Where the interval begins.
        from: Mark,
        /// Where it ends.
        to: Mark,
    },
}

/// What became of the requests of one client, or of all once they are merged.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    client: u32,
    begun: u64,
    /// By the marks under which a request began and ended. Most end under the mark under which they
    /// began or the next, so this grows with the marks, not with the requests.
    answered: BTreeMap<(Mark, Mark, Tag), Latencies>,
    lost: BTreeMap<LossKind, u64>,
    losses: Vec<Loss>,
}

impl Ledger {
    /// The ledger of one client; ids of different clients never meet.
    #[must_use]
    pub fn of_client(client: u32) -> Self {
        Self {
            client,
            ..Self::default()
        }
    }

    /// Enters a request that is about to be made.
    pub fn begin(&mut self, began: Mark, started: Instant) -> Ticket {
        let id = RequestId((u64::from(self.client) << CLIENT_SHIFT) | self.begun);
        self.begun += 1;
        Ticket { id, began, started }
    }

    /// Enters what became of it.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a ticket is used up, so that no request is settled twice"
    )]
    pub fn settle(&mut self, ticket: Ticket, fate: Fate, ended: Mark, when: Instant) {
        let Ticket { id, began, started } = ticket;
        match fate {
            Fate::Answered(tag) => {
                let answered = self.answered.entry((began, ended, tag)).or_default();
                answered.record(when.duration_since(started));
            }
            Fate::Lost(kind) => {
                *self.lost.entry(kind).or_default() += 1;
                if self.losses.len() < LOSSES_KEPT {
                    self.losses.push(Loss {
                        id,
                        kind,
                        began,
                        started,
                        when,
                    });
                }
            }
        }
    }

    /// Takes in another client's ledger.
    pub fn merge(&mut self, other: Self) {
        self.begun += other.begun;
        for (key, theirs) in other.answered {
            self.answered.entry(key).or_default().merge(&theirs);
        }
        for (kind, count) in other.lost {
            *self.lost.entry(kind).or_default() += count;
        }
        let room = LOSSES_KEPT - self.losses.len();
        self.losses.extend(other.losses.into_iter().take(room));
    }

    /// How many requests were made.
    #[must_use]
    pub fn begun(&self) -> u64 {
        self.begun
    }

    /// How many were answered.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.answered.values().map(Latencies::count).sum()
    }

    /// How many were lost.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.values().sum()
    }

    /// How many were lost in that way.
    #[must_use]
    pub fn lost_by(&self, kind: LossKind) -> u64 {
        self.lost.get(&kind).copied().unwrap_or_default()
    }

    /// The first losses of each client, a thousand at most.
    #[must_use]
    pub fn losses(&self) -> &[Loss] {
        &self.losses
    }

    /// The longest that an answered request took from its beginning to the end of its connection.
    #[must_use]
    pub fn longest(&self) -> Duration {
        self.answered
            .values()
            .map(Latencies::longest)
            .max()
            .unwrap_or_default()
    }

    /// How long those took that were under way at any time between the marks.
    #[must_use]
    pub fn under_way(&self, marks: Range<Mark>) -> Latencies {
        let mut latencies = Latencies::default();
        for ((began, ended, _), answered) in &self.answered {
            if *began < marks.end && *ended >= marks.start {
                latencies.merge(answered);
            }
        }
        latencies
    }

    /// How many each label answered.
    #[must_use]
    pub fn by_label(&self) -> BTreeMap<Tag, u64> {
        self.count(|_, _| true)
    }

    /// How many each label answered of those that began under `mark` or a later one.
    #[must_use]
    pub fn begun_since(&self, mark: Mark) -> BTreeMap<Tag, u64> {
        self.count(|began, _| began >= mark)
    }

    /// How many each label answered of those that began under the first mark of the range or later
    /// and ended before its last one was made.
    #[must_use]
    pub fn within(&self, marks: Range<Mark>) -> BTreeMap<Tag, u64> {
        self.count(|began, ended| marks.contains(&began) && marks.contains(&ended))
    }

    /// Checks that every request was answered.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Lost`], or [`LedgerError::Unsettled`].
    pub fn check_complete(&self) -> Result<(), LedgerError> {
        let lost = self.lost();
        if lost > 0 {
            let kinds: Vec<_> = self
                .lost
                .iter()
                .map(|(kind, count)| format!("{count} {kind}"))
                .collect();
            return Err(LedgerError::Lost {
                begun: self.begun,
                lost,
                kinds: kinds.join(", "),
            });
        }
        match self.begun - self.answered() {
            0 => Ok(()),
            open => Err(LedgerError::Unsettled(open)),
        }
    }

    /// Checks that what began and ended within `marks` was answered by `expected` alone, and gives
    /// how many those were, since none proves nothing.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Strayed`].
    pub fn check_within(&self, marks: Range<Mark>, expected: Tag) -> Result<u64, LedgerError> {
        let labels = self.within(marks.clone());
        let total = labels.values().sum();
        let right = labels.get(&expected).copied().unwrap_or_default();
        if right == total {
            return Ok(total);
        }
        Err(LedgerError::Strayed {
            strayed: total - right,
            total,
            expected,
            from: marks.start,
            to: marks.end,
        })
    }

    fn count(&self, wanted: impl Fn(Mark, Mark) -> bool) -> BTreeMap<Tag, u64> {
        let mut labels = BTreeMap::new();
        for ((began, ended, tag), answered) in &self.answered {
            if wanted(*began, *ended) {
                *labels.entry(*tag).or_default() += answered.count();
            }
        }
        labels
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(text: &str) -> Tag {
        text.parse().expect(text)
    }

    fn enter(ledger: &mut Ledger, began: u32, ended: u32, fate: Fate) -> RequestId {
        let now = Instant::now();
        let ticket = ledger.begin(Mark(began), now);
        let id = ticket.id();
        ledger.settle(ticket, fate, Mark(ended), now + Duration::from_millis(3));
        id
    }

    #[test]
    fn every_id_once_and_answered() {
        let mut ledger = Ledger::of_client(3);
        assert_eq!(ledger.check_complete(), Ok(()));
        let first = enter(&mut ledger, 0, 0, Fate::Answered(tag("v1")));
        let second = enter(&mut ledger, 0, 1, Fate::Answered(tag("v2")));
        assert_ne!(first, second);
        assert_eq!(ledger.check_complete(), Ok(()));
        assert_eq!(ledger.longest(), Duration::from_millis(3));
        assert_eq!(
            ledger.by_label(),
            BTreeMap::from([(tag("v1"), 1), (tag("v2"), 1)])
        );
    }

    #[test]
    fn a_ticket_that_nobody_settles_is_missed() {
        let mut ledger = Ledger::of_client(0);
        drop(ledger.begin(Mark(0), Instant::now()));
        assert_eq!(ledger.check_complete(), Err(LedgerError::Unsettled(1)));
    }

    #[test]
    fn losses_are_counted_by_kind_and_kept_up_to_a_bound() {
        let mut ledger = Ledger::of_client(0);
        for _ in 0..1200 {
            enter(&mut ledger, 0, 0, Fate::Lost(LossKind::Reset));
        }
        enter(&mut ledger, 0, 0, Fate::Lost(LossKind::Eof));
        assert_eq!(ledger.losses().len(), LOSSES_KEPT);
        assert_eq!(ledger.lost_by(LossKind::Reset), 1200);
        let error = ledger.check_complete().expect_err("lost");
        assert_eq!(
            error.to_string(),
            "1201 of 1201 requests lost: 1200 reset, 1 ended early"
        );
    }

    #[test]
    fn under_way_is_whatever_was_not_over_before() {
        let mut ledger = Ledger::of_client(0);
        for (began, ended) in [(0, 0), (0, 1), (1, 1), (0, 3), (2, 2)] {
            enter(&mut ledger, began, ended, Fate::Answered(tag("v1")));
        }
        enter(&mut ledger, 1, 1, Fate::Lost(LossKind::Reset));
        let during = ledger.under_way(Mark(1)..Mark(2));
        assert_eq!(
            (during.count(), during.longest()),
            (3, Duration::from_millis(3))
        );
    }

    #[test]
    fn marks_tell_before_from_after() {
        let mut ledger = Ledger::of_client(0);
        for (began, ended, label) in [
            (0, 0, "v1"),
            (0, 1, "v1"),
            (1, 2, "v2"),
            (2, 2, "v2"),
            (2, 3, "v3"),
            (3, 3, "v3"),
        ] {
            enter(&mut ledger, began, ended, Fate::Answered(tag(label)));
        }
        assert_eq!(
            ledger.check_within(Mark(2)..Mark(3), tag("v2")),
            Ok(1),
            "what ended after mark 3 may be v3's"
        );
        assert_eq!(
            ledger.begun_since(Mark(2)),
            BTreeMap::from([(tag("v2"), 1), (tag("v3"), 2)])
        );
        let strayed = ledger
            .check_within(Mark(0)..Mark(4), tag("v2"))
            .expect_err("all of them");
        assert!(matches!(
            strayed,
            LedgerError::Strayed {
                strayed: 4,
                total: 6,
                ..
            }
        ));
    }

    #[test]
    fn ledgers_of_clients_add_up() {
        let mut total = Ledger::default();
        for client in 1..=3 {
            let mut ledger = Ledger::of_client(client);
            let id = enter(&mut ledger, 0, 0, Fate::Answered(tag("v1")));
            assert_eq!(id.0 >> CLIENT_SHIFT, u64::from(client));
            enter(&mut ledger, 0, 0, Fate::Lost(LossKind::TimedOut));
            total.merge(ledger);
        }
        assert_eq!((total.begun(), total.answered(), total.lost()), (6, 3, 3));
        assert_eq!(total.losses().len(), 3);
    }
}
