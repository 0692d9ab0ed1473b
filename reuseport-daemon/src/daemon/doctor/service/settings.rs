//! Whether whoever stands by is set as whoever serves.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::Facts;
use crate::{
    daemon::{doctor::finding::Finding, settings::Comparison},
    domain::{Generation, InstanceState, Refusal, Service, compare},
    sys::netns::Netns,
};

/// The refusal that a migration to each instance that stands by would meet. One that cannot be
/// looked at has a finding of its own.
pub(super) fn examine(service: &Service, netns: &Netns) -> BTreeMap<Generation, Refusal> {
    let refusal = |to| {
        let read = Comparison::before(service, to)
            .read(netns, &Arc::default())
            .ok()?;
        compare(&read.groups, &BTreeSet::new()).err()
    };
    let standby = service.in_state(InstanceState::Standby);
    standby.filter_map(|to| Some((to, refusal(to)?))).collect()
}

/// Findings of the service as a whole.
pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let name = facts.state.name();
    let finding = |(to, refusal): (&Generation, &Refusal)| {
        let why = format!(
            "a migration to {} would be refused: {refusal}",
            facts.name_of(*to)
        );
        let finding = Finding::note(name.to_string(), why);
        match refusal.hint() {
            Some(hint) => finding.hint(hint),
            None => finding,
        }
    };
    facts.mismatches.iter().map(finding).collect()
}

#[cfg(test)]
mod tests {
    use super::{super::fixture, *};
    use crate::{daemon::doctor::finding::Level, domain::Setting};

    #[test]
    fn an_instance_that_is_set_otherwise_is_noted() {
        let mut facts = fixture::serving();
        assert_eq!(judge(&facts), []);
        fixture::register(&mut facts, 2, InstanceState::Standby);
        let refusal = Refusal::SettingsDiffer {
            address: "0.0.0.0:7777".parse().expect("an address"),
            setting: Setting::TcpSaveSyn,
            old: "0".to_owned(),
            new: "1".to_owned(),
            also: Vec::new(),
        };
        facts.mismatches.insert(Generation(2), refusal);
        let found = judge(&facts);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].level, Level::Note);
        assert_eq!(
            found[0].message,
            "a migration to v2 (pid 102) would be refused: tcp-save-syn of the new listeners on \
             0.0.0.0:7777 is 1, and of those that serve 0"
        );
        let hint = found[0].hint.as_deref().expect("a hint");
        assert!(hint.contains("--allow-mismatch tcp-save-syn"), "{hint}");
    }
}
