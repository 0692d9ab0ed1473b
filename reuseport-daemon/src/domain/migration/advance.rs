//! From the switch to the retirement, one observation at a time.

use std::time::Duration;

use super::{Drain, End, Observation, Phase, Tally, end::end};
use crate::domain::{Decision, Effect, Service, Wait};

/// The first pause between two readings; it doubles up to [`LONGEST_PAUSE`].
const SHORTEST_PAUSE: Duration = Duration::from_millis(2);

/// The longest pause between two readings.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// Decides what follows from an observation. A service without a migration ignores it.
#[must_use]
pub fn advance(service: &Service, seen: Observation, now_ms: u64) -> Decision {
    let Some(migration) = &service.migration else {
        return Decision::unchanged(service);
    };
    let late = now_ms >= migration.options.deadline_ms;
    match (migration.phase, seen) {
        (Phase::Switched, Observation::GraceOver) => {
            let pause = SHORTEST_PAUSE;
            go_on(service, Phase::Handshakes { pause }, Wait::Snapshot)
        }
        (Phase::Handshakes { .. } | Phase::Queues { .. }, Observation::Deaf)
            if migration.can_go_back(service) =>
        {
            end(service, End::RolledBack)
        }
        (
            Phase::Queues { .. },
            Observation::Reading {
                handshakes: 0,
                queued: 0,
            },
        ) => retire(&noted(service, seen)),
        (Phase::Switched, Observation::Missed)
        | (Phase::Handshakes { .. } | Phase::Settling | Phase::Queues { .. }, _)
            if late =>
        {
            let service = &noted(service, seen);
            match (migration.phase, migration.options.drain) {
                (Phase::Handshakes { .. } | Phase::Settling, Drain::Kernel) => retire(service),
                (_, Drain::Owner | Drain::Kernel | Drain::Handoff) => end(service, End::TimedOut),
            }
        }
        (Phase::Handshakes { pause }, Observation::Reading { handshakes, .. }) => {
            let service = &noted(service, seen);
            if handshakes == 0 {
                go_on(service, Phase::Settling, Wait::Grace)
            } else {
                look_again(service, pause, |pause| Phase::Handshakes { pause })
            }
        }
        (Phase::Settling, Observation::GraceOver) if migration.options.drain == Drain::Kernel => {
            retire(service)
        }
        (Phase::Settling, Observation::GraceOver) => {
            let pause = SHORTEST_PAUSE;
            let after = Duration::ZERO;
            go_on(service, Phase::Queues { pause }, Wait::Reading { after })
        }
        (Phase::Queues { pause }, Observation::Reading { handshakes, .. }) => {
            let service = &noted(service, seen);
            if handshakes == 0 {
                look_again(service, pause, |pause| Phase::Queues { pause })
            } else {
                look_again(service, pause, |pause| Phase::Handshakes { pause })
            }
        }
        (Phase::Switched | Phase::Settling, Observation::Missed) => {
            go_on(service, migration.phase, Wait::Grace)
        }
        (Phase::Handshakes { .. }, Observation::Missed | Observation::Deaf)
            if migration.tally.is_none() =>
        {
            go_on(service, migration.phase, Wait::Snapshot)
        }
        (
            Phase::Handshakes { .. } | Phase::Queues { .. },
            Observation::Missed | Observation::Deaf,
        ) => {
            let after = Duration::ZERO;
            go_on(service, migration.phase, Wait::Reading { after })
        }
        (Phase::Retiring, Observation::Missed) => {
            let wait = Wait::Retirement(migration.options);
            go_on(service, Phase::Retiring, wait)
        }
        (Phase::Retiring, Observation::Retired) => end(service, End::Done),
        (Phase::Retiring, Observation::NotRetired) => end(service, End::NotRetired),
        // Nothing was waited for in these, or not this: an answer that came too late.
        (
            Phase::Staged
            | Phase::Switched
            | Phase::Handshakes { .. }
            | Phase::Settling
            | Phase::Queues { .. }
            | Phase::Retiring,
            _,
        ) => Decision::unchanged(service),
    }
}

fn go_on(service: &Service, phase: Phase, wait: Wait) -> Decision {
    let mut decision = Decision::unchanged(service);
    if let Some(migration) = &mut decision.next.migration {
        migration.phase = phase;
    }
    decision.wait = Some(wait);
    decision
}

fn look_again(service: &Service, pause: Duration, phase: fn(Duration) -> Phase) -> Decision {
    let longer = (pause * 2).min(LONGEST_PAUSE);
    go_on(service, phase(longer), Wait::Reading { after: pause })
}

/// The service with a reading noted in its migration's tally.
fn noted(service: &Service, seen: Observation) -> Service {
    let mut service = service.clone();
    if let Some(migration) = &mut service.migration
        && let Observation::Reading { handshakes, queued } = seen
    {
        let tally = migration.tally.get_or_insert(Tally {
            handshakes,
            queued,
            left: 0,
        });
        tally.left = handshakes + queued;
    }
    service
}

fn retire(service: &Service) -> Decision {
    let mut decision = Decision::unchanged(service);
    let Some(migration) = &mut decision.next.migration else {
        return decision;
    };
    migration.phase = Phase::Retiring;
    decision
        .effects
        .push(Effect::RecordMigration(Some(migration.clone())));
    decision.wait = Some(Wait::Retirement(migration.options));
    decision
}
