//! Accept queues, and what the programs have counted.

use reuseport_common::{Cause, Outcome};

use super::{Facts, Sockets};
use crate::{
    daemon::doctor::finding::{Finding, count},
    domain::{Generation, Group, InstanceState},
    steering::Runs,
    sys::sock_diag::ListenerRow,
};

/// Findings of the registered listeners' accept queues, at most one of each kind per instance.
pub(super) fn judge_queues(facts: &Facts, sockets: &Sockets) -> Vec<Finding> {
    let rows = sockets.by_cookie();
    let mut findings = Vec::new();
    for (generation, instance) in &facts.state.instances {
        let ours: Vec<&ListenerRow> = facts
            .state
            .listeners_of(*generation)
            .filter_map(|(cookie, _)| rows.get(&cookie).copied())
            .collect();
        findings.extend(match instance.state {
            InstanceState::Standby | InstanceState::Serving | InstanceState::Draining => {
                judge_fill(facts, *generation, &ours)
            }
            InstanceState::Retired | InstanceState::Gone => {
                judge_left_behind(facts, *generation, &ours)
            }
        });
        if matches!(
            instance.state,
            InstanceState::Standby | InstanceState::Serving
        ) {
            findings.extend(judge_cap(facts, *generation, &ours, sockets.somaxconn));
        }
    }
    findings
}

/// A queue is full when it holds more than its backlog (`sk_acceptq_is_full`,
/// <https://elixir.bootlin.com/linux/v6.18/source/include/net/sock.h>).
fn judge_fill(facts: &Facts, generation: Generation, rows: &[&ListenerRow]) -> Option<Finding> {
    let fill = |row: &ListenerRow| (u64::from(row.accept_queue), u64::from(row.backlog));
    let near = |row: &&&ListenerRow| {
        let (queued, backlog) = fill(row);
        queued > 0 && queued * 4 >= backlog * 3
    };
    let crowded: Vec<_> = rows.iter().filter(near).collect();
    let fullest = crowded.iter().max_by_key(|row| row.accept_queue)?;
    let (queued, backlog) = fill(fullest);
    let how = if queued > backlog {
        "full"
    } else {
        "nearly full"
    };
    let finding = Finding::warning(
        facts.state.name().to_string(),
        format!(
            "{} of {} with a queue that is nearly full or full; the fullest is {how}, with \
             {queued} connections and a backlog of {backlog}",
            count(crowded.len(), "listener"),
            facts.name_of(generation),
        ),
    );
    Some(finding.hint("the server accepts more slowly than clients come, or its backlog is small"))
}

fn judge_left_behind(
    facts: &Facts,
    generation: Generation,
    rows: &[&ListenerRow],
) -> Option<Finding> {
    let queued: u64 = rows.iter().map(|row| u64::from(row.accept_queue)).sum();
    (queued > 0).then(|| {
        Finding::warning(
            facts.state.name().to_string(),
            format!(
                "{} has been moved away from, and still has {queued} connections that it has not \
                 accepted",
                facts.name_of(generation)
            ),
        )
    })
}

/// `listen` takes the lesser of the two, and nobody is told
/// (<https://elixir.bootlin.com/linux/v6.18/source/net/socket.c>).
fn judge_cap(
    facts: &Facts,
    generation: Generation,
    rows: &[&ListenerRow],
    somaxconn: Option<u64>,
) -> Option<Finding> {
    let somaxconn = somaxconn?;
    let capped = rows
        .iter()
        .filter(|row| u64::from(row.backlog) == somaxconn)
        .count();
    (capped > 0).then(|| {
        Finding::note(
            facts.state.name().to_string(),
            format!(
                "{} of {} with a backlog of {somaxconn}, which is all that net.core.somaxconn \
                 allows: the server may have asked for more",
                count(capped, "listener"),
                facts.name_of(generation)
            ),
        )
    })
}

/// Findings of what a group's program did that was not as planned, since it was loaded.
pub(super) fn judge_outcomes(facts: &Facts, group: &Group, runs: &Runs) -> Vec<Finding> {
    let note = |number: u64, what: &str| {
        (number > 0).then(|| {
            let message = format!("since the program was loaded, {number} {what}");
            Finding::note(facts.subject(group), message)
        })
    };
    let of = |outcome| runs.of(outcome, Cause::New) + runs.of(outcome, Cause::Migrating);
    let moved: u64 = Outcome::ALL
        .into_iter()
        .map(|outcome| runs.of(outcome, Cause::Migrating))
        .sum();
    [
        note(
            of(Outcome::Probed),
            "connections found their listener closed and went to a neighbour's (probed): \
             an instance closed a listener, or ended, while it served",
        ),
        note(
            of(Outcome::Parked),
            "connections found no live listener and went to the parking listener (parked)",
        ),
        note(
            of(Outcome::Kernel),
            "connections found no live listener, and the kernel chose among what was in the group \
             (kernel): those may have gone to a listener that nobody registered",
        ),
        note(
            moved,
            "connections were moved, half-open or queued, when their listener closed (migrating)",
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests {
    use super::{super::fixture, *};
    use crate::daemon::doctor::finding::Level;

    fn queues(facts: &Facts) -> Vec<Finding> {
        judge_queues(facts, facts.sockets.as_ref().expect("sockets"))
    }

    fn with_queue(queued: u32, backlog: u32, state: InstanceState) -> Vec<Finding> {
        let mut facts = fixture::serving();
        fixture::instance(&mut facts, 1).state = state;
        let row = &mut fixture::rows(&mut facts)[0];
        (row.accept_queue, row.backlog) = (queued, backlog);
        queues(&facts)
    }

    #[test]
    fn a_crowded_queue_is_a_warning() {
        let serving = InstanceState::Serving;
        assert_eq!(with_queue(0, 128, serving), []);
        assert_eq!(with_queue(95, 128, serving), []);
        assert_eq!(with_queue(0, 0, serving), []);
        let near = with_queue(96, 128, serving);
        assert_eq!(near[0].level, Level::Warning);
        assert!(
            near[0].message.contains("is nearly full, with 96"),
            "{near:?}"
        );
        let full = with_queue(6, 5, serving);
        assert!(full[0].message.contains("is full, with 6"), "{full:?}");
    }

    #[test]
    fn what_a_retired_instance_still_has_is_a_warning() {
        assert_eq!(with_queue(0, 128, InstanceState::Retired), []);
        let left = with_queue(3, 128, InstanceState::Retired);
        assert_eq!(left[0].level, Level::Warning);
        assert!(left[0].message.contains("3 connections"), "{left:?}");
    }

    #[test]
    fn a_backlog_at_the_kernels_limit_is_noted() {
        let capped = with_queue(0, 4_096, InstanceState::Standby);
        assert_eq!(capped.len(), 1, "{capped:?}");
        assert_eq!(capped[0].level, Level::Note);
        assert!(capped[0].message.contains("somaxconn"), "{capped:?}");
        assert_eq!(with_queue(0, 4_096, InstanceState::Retired), []);
    }

    #[test]
    fn only_what_was_not_planned_is_explained() {
        let facts = fixture::serving();
        let outcomes = |runs: &Runs| judge_outcomes(&facts, &facts.state.groups[0], runs);
        let quiet = fixture::runs(&[(Outcome::Selected, Cause::New, 5)]);
        assert_eq!(outcomes(&quiet), []);
        let loud = fixture::runs(&[
            (Outcome::Probed, Cause::New, 1),
            (Outcome::Parked, Cause::New, 2),
            (Outcome::Kernel, Cause::New, 3),
            (Outcome::Kernel, Cause::Migrating, 4),
            (Outcome::Selected, Cause::Migrating, 5),
        ]);
        let found = outcomes(&loud);
        let numbers: Vec<bool> = found
            .iter()
            .zip(["loaded, 1 ", "loaded, 2 ", "loaded, 7 ", "loaded, 9 "])
            .map(|(finding, number)| finding.message.contains(number))
            .collect();
        assert_eq!(numbers, [true; 4], "{found:?}");
        assert!(found.iter().all(|it| it.level == Level::Note));
    }
}
