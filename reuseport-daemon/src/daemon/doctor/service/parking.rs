//! Whether connections can wait while nobody serves, and whether they do.

use super::Facts;
use crate::{
    api::wire::ParkingStatus,
    daemon::doctor::finding::Finding,
    domain::{Group, Service},
};

/// A group's parking listener.
#[derive(Clone, Debug)]
pub(super) struct Parking {
    pub(super) status: ParkingStatus,
    /// Why there is none, where there should be.
    pub(super) trouble: Option<String>,
    /// Whether what waits outlives the daemon.
    pub(super) kept: bool,
}

/// Findings of one group's parking listener; none where the service does not park.
pub(super) fn judge(facts: &Facts, group: &Group) -> Option<Finding> {
    let parking = facts.parking_of(group)?;
    let subject = facts.subject(group);
    if let Some(trouble) = &parking.trouble {
        let message = format!("connections cannot be parked here: {trouble}");
        return Some(Finding::error(subject, message).hint("it is tried again every few seconds"));
    }
    let status = &parking.status;
    let limit = seconds(status.timeout_ms);
    Some(match (status.open, status.unserved_ms) {
        (true, None) => {
            let message = format!("connections would wait for up to {limit} if nobody served");
            if parking.kept {
                Finding::ok(subject, message)
            } else {
                Finding::warning(subject, message + ", and end with the daemon")
                    .hint("see the finding on the descriptor store")
            }
        }
        (true, Some(since)) => judge_wait(facts, subject, status, since),
        (false, since) => Finding::warning(
            subject,
            format!(
                "nobody has served for {}, and connections wait for no more than {limit}: they are \
                 refused",
                seconds(since.unwrap_or(status.timeout_ms))
            ),
        )
        .hint(register(&facts.state)),
    })
}

/// A queue is full when it holds more than its backlog (`sk_acceptq_is_full`,
/// <https://elixir.bootlin.com/linux/v6.18/source/include/net/sock.h>).
fn judge_wait(facts: &Facts, subject: String, status: &ParkingStatus, since_ms: u64) -> Finding {
    let (queued, backlog) = (status.queued, status.backlog.unwrap_or(u32::MAX));
    let waits = format!(
        "{queued} connections wait, nobody having served for {}",
        seconds(since_ms)
    );
    if queued > backlog {
        Finding::error(
            subject,
            format!("the parking listener is full: {waits}, and others are not answered"),
        )
        .hint("net.core.somaxconn, in the service's network namespace, is how many may wait")
    } else if u64::from(queued) * 4 >= u64::from(backlog) * 3 {
        Finding::warning(
            subject,
            format!("the parking listener is nearly full, with room for {backlog}: {waits}"),
        )
        .hint("net.core.somaxconn, in the service's network namespace, is how many may wait")
    } else {
        Finding::note(subject, waits).hint(register(&facts.state))
    }
}

fn register(service: &Service) -> String {
    format!("reuseportctl register {} --pid PID", service.name())
}

fn seconds(ms: u64) -> String {
    format!("{}s", ms / 1000)
}

#[cfg(test)]
mod tests {
    use super::{super::fixture, *};
    use crate::daemon::doctor::finding::Level;

    fn found(status: ParkingStatus, trouble: Option<&str>) -> Finding {
        let mut facts = fixture::serving();
        facts.parking = vec![Some(Parking {
            status,
            trouble: trouble.map(ToOwned::to_owned),
            kept: true,
        })];
        judge(&facts, &facts.state.groups[0]).expect("it parks")
    }

    fn waiting(queued: u32) -> ParkingStatus {
        ParkingStatus {
            open: true,
            queued,
            backlog: Some(128),
            unserved_ms: Some(5_500),
            timeout_ms: 30_000,
        }
    }

    #[test]
    fn a_service_that_does_not_park_is_not_asked_about() {
        let facts = fixture::serving();
        assert_eq!(judge(&facts, &facts.state.groups[0]), None);
    }

    #[test]
    fn while_somebody_serves_it_stands_ready() {
        let spare = ParkingStatus {
            unserved_ms: None,
            ..waiting(0)
        };
        let finding = found(spare, None);
        assert_eq!(finding.level, Level::Ok);
        assert!(finding.message.contains("up to 30s"), "{finding:?}");
    }

    #[test]
    fn what_ends_with_the_daemon_is_a_warning() {
        let mut facts = fixture::serving();
        facts.parking = vec![Some(Parking {
            status: ParkingStatus {
                unserved_ms: None,
                ..waiting(0)
            },
            trouble: None,
            kept: false,
        })];
        let finding = judge(&facts, &facts.state.groups[0]).expect("it parks");
        assert_eq!(finding.level, Level::Warning);
        assert!(finding.message.ends_with("end with the daemon"));
    }

    #[test]
    fn what_waits_is_told_and_weighed() {
        let levels = [(0, Level::Note), (95, Level::Note), (96, Level::Warning)];
        for (queued, level) in levels.into_iter().chain([(128, Level::Warning)]) {
            assert_eq!(found(waiting(queued), None).level, level, "{queued}");
        }
        let full = found(waiting(129), None);
        assert_eq!(full.level, Level::Error);
        assert!(full.message.contains("129 connections wait"), "{full:?}");
        assert!(full.message.contains("for 5s"), "{full:?}");
    }

    #[test]
    fn a_refusal_says_since_when() {
        let closed = ParkingStatus {
            open: false,
            backlog: None,
            unserved_ms: Some(61_000),
            ..waiting(0)
        };
        let finding = found(closed, None);
        assert_eq!(finding.level, Level::Warning);
        assert!(finding.message.contains("for 61s"), "{finding:?}");
    }

    #[test]
    fn what_cannot_be_opened_is_an_error() {
        let finding = found(waiting(0), Some("no such device"));
        assert_eq!(finding.level, Level::Error);
        assert!(finding.message.ends_with("no such device"), "{finding:?}");
    }
}
