//! Whether the steering programs ran as often as they should have.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use anyhow::{Context, Result, ensure};
use reuseport_daemon::{
    api::wire::{OutcomeCounts, Outcomes},
    lab::{
        link::{Direction, Segment, Verdict},
        world::World,
    },
};

use crate::{stage::Stage, wait};

/// Counts the resets that clients send.
///
/// A client ends each connection with one. It sends another for every segment that reaches it
/// after that: one that the server has sent again, since the answer to the first was late on a busy
/// machine, or its own end of a session. The server's socket is gone by the time this other reset
/// arrives, so the kernel looks for a listener, and the program runs as it does for a SYN. Nothing
/// comes of it. So there are exactly as many runs as resets.
#[derive(Debug)]
pub struct Resets(Arc<AtomicU64>);

impl Resets {
    /// Counts from now on, by the link's filter.
    ///
    /// # Errors
    ///
    /// Where the world has no link.
    pub fn counted(world: &World) -> Result<Self> {
        let count = Arc::new(AtomicU64::new(0));
        let counted = Self(Arc::clone(&count));
        let filter = move |direction, packet: &[u8]| {
            let reset = Segment::parse(packet).is_some_and(|it| it.is_reset());
            if direction == Direction::ToServer && reset {
                count.fetch_add(1, Ordering::Relaxed);
            }
            Verdict::Pass
        };
        let link = world.link().context("a link")?;
        link.set_filter(Box::new(filter));
        Ok(counted)
    }

    /// How many there were so far.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The outcomes of all groups together, once the last packet has arrived. There is a run for every
/// reset then.
///
/// # Errors
///
/// Where there is not, or the daemon does not tell.
pub fn outcomes(stage: &Stage, resets: &Resets) -> Result<Outcomes> {
    let mut total = Outcomes::default();
    let accounted = wait::until("as many runs as resets", || {
        total = sum_of_groups(stage)?;
        let OutcomeCounts {
            selected,
            probed,
            parked,
            kernel,
        } = total.new;
        Ok(selected + probed + parked + kernel == resets.count())
    });
    accounted.with_context(|| format!("{total:?} for {} resets", resets.count()))?;
    Ok(total)
}

/// Those of all groups together, each of which had its share.
fn sum_of_groups(stage: &Stage) -> Result<Outcomes> {
    let mut total = Outcomes::default();
    for group in stage.status()?.groups {
        let Outcomes { new, migrating } = group.outcomes;
        ensure!(new.selected > 0, "nobody came to {}", group.listen);
        for (sum, counts) in [(&mut total.new, new), (&mut total.migrating, migrating)] {
            sum.selected += counts.selected;
            sum.probed += counts.probed;
            sum.parked += counts.parked;
            sum.kernel += counts.kernel;
        }
    }
    Ok(total)
}
