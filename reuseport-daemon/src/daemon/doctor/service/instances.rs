//! What the instances' states and processes mean.

use super::{Access, Facts};
use crate::{
    daemon::doctor::finding::Finding,
    domain::{Generation, InstanceState},
};

/// Findings of the service as a whole.
pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let state = &facts.state;
    let mut findings = Vec::new();
    findings.extend(state.migration.as_ref().map(|migration| {
        let (to, phase) = (facts.name_of(migration.to), migration.phase.as_str());
        Finding::note(
            state.name().to_string(),
            format!("a migration to {to} is under way: {phase}"),
        )
    }));
    for (generation, instance) in &state.instances {
        findings.extend(judge_state(facts, *generation, instance.state));
        findings.extend(judge_access(facts, *generation));
    }
    findings
}

fn judge_state(facts: &Facts, generation: Generation, state: InstanceState) -> Option<Finding> {
    let subject = facts.state.name().to_string();
    let name = facts.name_of(generation);
    match state {
        InstanceState::Standby | InstanceState::Serving | InstanceState::Retired => None,
        InstanceState::Draining if facts.state.migration.is_some() => Some(Finding::note(
            subject,
            format!("{name} is being drained by the migration that is under way"),
        )),
        InstanceState::Draining => Some(Finding::note(
            subject,
            format!(
                "{name} was not empty when its migration ran out of time, or could not be retired at \
                 its end; the same migration again goes on with it"
            ),
        )),
        InstanceState::Gone => Some(
            Finding::warning(subject, format!("{name} ended while it served")).hint(format!(
                "when that is dealt with: reuseportctl release {} {}",
                facts.state.name(),
                facts.state.label(generation)
            )),
        ),
    }
}

fn judge_access(facts: &Facts, generation: Generation) -> Option<Finding> {
    let subject = facts.state.name().to_string();
    let name = facts.name_of(generation);
    match facts.access.get(&generation)? {
        Access::Granted => None,
        Access::Ended => Some(Finding::note(
            subject,
            format!("{name} has just ended, and the daemon is about to take leave of it"),
        )),
        Access::Denied(why) => Some(
            Finding::warning(
                subject,
                format!("the daemon cannot get at the sockets of {name}: {why}"),
            )
            .hint(
                "reuseportd needs CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH for other users' \
                 processes, and kernel.yama.ptrace_scope below 3",
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::fixture, *};
    use crate::daemon::doctor::finding::Level;

    #[test]
    fn an_instance_that_serves_needs_no_word() {
        assert_eq!(judge(&fixture::serving()), []);
    }

    #[test]
    fn one_that_ended_while_it_served_is_a_warning() {
        let mut facts = fixture::serving();
        fixture::instance(&mut facts, 1).state = InstanceState::Gone;
        facts.access.clear();
        let found = judge(&facts);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].level, Level::Warning);
        assert_eq!(found[0].message, "v1 (pid 101) ended while it served");
        let hint = found[0].hint.as_deref().expect("a hint");
        assert!(hint.ends_with("reuseportctl release game v1"), "{hint}");
    }

    #[test]
    fn a_migration_and_what_it_drains_are_noted() {
        let mut facts = fixture::serving();
        fixture::register(&mut facts, 2, InstanceState::Serving);
        fixture::instance(&mut facts, 1).state = InstanceState::Draining;
        let idle = judge(&facts);
        assert!(idle[0].message.contains("ran out of time"), "{idle:?}");

        facts.state.migration = Some(fixture::migration(2));
        let found = judge(&facts);
        assert!(found.iter().all(|it| it.level == Level::Note), "{found:?}");
        assert_eq!(
            found[0].message,
            "a migration to v2 (pid 102) is under way: staged"
        );
        assert!(found[1].message.contains("being drained"), "{found:?}");
    }

    #[test]
    fn a_process_out_of_reach_is_a_warning() {
        let mut facts = fixture::serving();
        let denied = Access::Denied("not permitted".to_owned());
        facts.access.insert(Generation(1), denied);
        assert_eq!(judge(&facts)[0].level, Level::Warning);
        facts.access.insert(Generation(1), Access::Ended);
        assert_eq!(judge(&facts)[0].level, Level::Note);
    }
}
