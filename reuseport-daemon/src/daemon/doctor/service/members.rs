//! A group's registered listeners: whose they are, and whether they are still there.

use super::{Facts, Program, Sockets};
use crate::{
    daemon::doctor::finding::{Finding, Level, count, list},
    domain::{Generation, Group, InstanceState, SocketCookie},
};

/// Findings of one group's registered listeners.
pub(super) fn judge(
    facts: &Facts,
    sockets: &Sockets,
    group: &Group,
    program: &Program,
) -> Vec<Finding> {
    let rows = sockets.by_cookie();
    let (mut members, mut closed) = (Vec::new(), Vec::new());
    let mut serves = false;
    for (generation, instance) in &facts.state.instances {
        let cookies = cookies(group, *generation);
        let (there, not_there): (Vec<_>, Vec<_>) =
            cookies.into_iter().partition(|it| rows.contains_key(it));
        if !there.is_empty() {
            serves |= instance.state == InstanceState::Serving;
            members.push(describe(facts, *generation, instance.state, &there));
        }
        if !not_there.is_empty() && !facts.has_ended(*generation) {
            closed.extend(judge_closed(
                facts,
                group,
                *generation,
                instance.state,
                &not_there,
            ));
        }
    }
    let mut findings = vec![summary(facts, group, program, serves, &members)];
    findings.extend(closed);
    findings
}

/// Whether a live listener of a serving instance is in the group.
pub(super) fn has_serving(facts: &Facts, sockets: &Sockets, group: &Group) -> bool {
    let rows = sockets.by_cookie();
    facts
        .state
        .in_state(InstanceState::Serving)
        .flat_map(|generation| cookies(group, generation))
        .any(|cookie| rows.contains_key(&cookie))
}

fn cookies(group: &Group, generation: Generation) -> Vec<SocketCookie> {
    let listeners = group.slots.values();
    listeners
        .filter(|listener| listener.generation == generation)
        .map(|listener| listener.cookie)
        .collect()
}

fn describe(
    facts: &Facts,
    generation: Generation,
    state: InstanceState,
    cookies: &[SocketCookie],
) -> String {
    let does = match state {
        InstanceState::Standby => "stands by",
        InstanceState::Serving => "serves",
        InstanceState::Draining => "is being drained",
        InstanceState::Retired => "is retired",
        InstanceState::Gone => "has ended",
    };
    format!(
        "{} {does} with {} ({})",
        facts.name_of(generation),
        count(cookies.len(), "listener"),
        list("cookie", cookies)
    )
}

fn summary(
    facts: &Facts,
    group: &Group,
    program: &Program,
    serves: bool,
    members: &[String],
) -> Finding {
    let subject = facts.subject(group);
    if facts.state.instances.is_empty() {
        let message = if facts.parks(group) {
            "no instance is registered, so connections wait"
        } else {
            "no instance is registered, so nothing is steered"
        };
        return Finding::note(subject, message).hint(format!(
            "reuseportctl register {} --pid PID",
            facts.state.name()
        ));
    }
    let members = if members.is_empty() {
        "it has no registered listener".to_owned()
    } else {
        members.join("; ")
    };
    if serves {
        let kind = program.kind.as_str();
        Finding::ok(subject, format!("{members}; the program is {kind}"))
    } else if facts.parks(group) {
        Finding::error(
            subject,
            format!("no instance serves here, so that connections wait: {members}"),
        )
    } else {
        Finding::error(
            subject,
            format!(
                "no instance serves here, so that connections go to any listener that the kernel \
                 finds, or are refused: {members}"
            ),
        )
    }
}

fn judge_closed(
    facts: &Facts,
    group: &Group,
    generation: Generation,
    state: InstanceState,
    cookies: &[SocketCookie],
) -> Option<Finding> {
    let level = match state {
        InstanceState::Serving => Level::Error,
        InstanceState::Standby | InstanceState::Draining => Level::Warning,
        // Its owner may close them, and does when it exits.
        InstanceState::Retired | InstanceState::Gone => return None,
    };
    Some(
        Finding::new(
            level,
            facts.subject(group),
            format!(
                "{} has closed {} that it registered ({})",
                facts.name_of(generation),
                count(cookies.len(), "listener"),
                list("cookie", cookies)
            ),
        )
        .hint("start the instance again, register it, and migrate to it"),
    )
}

#[cfg(test)]
mod tests {
    use super::{super::fixture, *};

    fn found(facts: &Facts) -> Vec<Finding> {
        let sockets = facts.sockets.as_ref().expect("sockets");
        judge(facts, sockets, &facts.state.groups[0], &facts.programs[0])
    }

    #[test]
    fn members_are_listed_with_what_they_do() {
        let mut facts = fixture::serving();
        fixture::register(&mut facts, 2, InstanceState::Standby);
        assert_eq!(
            found(&facts),
            [Finding::ok(
                "game at 0.0.0.0:7777",
                "v1 (pid 101) serves with 1 listener (cookie 1001); v2 (pid 102) stands by with 1 \
                 listener (cookie 1002); the program is select_or_migrate"
            )]
        );
    }

    #[test]
    fn a_service_without_instances_is_not_steered_yet() {
        let found = found(&fixture::empty());
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].level, Level::Note);
    }

    #[test]
    fn a_closed_listener_weighs_as_much_as_it_would_be_missed() {
        let levels = |state| {
            let mut facts = fixture::serving();
            fixture::instance(&mut facts, 1).state = state;
            fixture::rows(&mut facts).clear();
            found(&facts)
                .into_iter()
                .map(|it| it.level)
                .collect::<Vec<_>>()
        };
        // The first is the group's: nobody serves.
        assert_eq!(levels(InstanceState::Serving), [Level::Error, Level::Error]);
        assert_eq!(
            levels(InstanceState::Standby),
            [Level::Error, Level::Warning]
        );
        assert_eq!(
            levels(InstanceState::Draining),
            [Level::Error, Level::Warning]
        );
        assert_eq!(levels(InstanceState::Retired), [Level::Error]);
    }

    #[test]
    fn one_of_two_closed_still_serves() {
        let mut facts = fixture::serving();
        fixture::add_listener(&mut facts, 1, 1_017);
        fixture::rows(&mut facts).retain(|row| row.cookie.0 != 1_017);
        let found = found(&facts);
        assert_eq!(found[0].level, Level::Ok);
        assert_eq!(
            found[1].message,
            "v1 (pid 101) has closed 1 listener that it registered (cookie 1017)"
        );
    }

    #[test]
    fn what_a_process_left_when_it_ended_is_not_held_against_it() {
        let mut facts = fixture::serving();
        facts
            .access
            .insert(Generation(1), super::super::Access::Ended);
        fixture::rows(&mut facts).clear();
        assert_eq!(found(&facts).len(), 1);
    }
}
