//! Listeners that nobody registered: in the group, or bound so that one takes connections from the
//! other.

use std::collections::BTreeMap;

use super::{Facts, Sockets, members};
use crate::{
    daemon::doctor::finding::{Finding, count, list},
    domain::{Address, Group, Service, SocketCookie},
    sys::sock_diag::ListenerRow,
};

/// How a listener that nobody registered stands to a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Relation {
    /// At the same address.
    Within,
    /// Bound more specifically: connections to its address are its own.
    Shadows,
    /// Bound less specifically: it gets what the group does not take.
    IsShadowed,
}

/// Listeners that have the same to be said of them.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Kind<'a> {
    relation: Relation,
    address: &'a Address,
    uid: u32,
    pids: &'a [u32],
}

/// The rows that are strangers to any of the service's groups.
pub(super) fn all<'a>(
    state: &Service,
    rows: &'a [ListenerRow],
) -> impl Iterator<Item = &'a ListenerRow> {
    rows.iter().filter(move |row| {
        let groups = state.groups.iter();
        groups
            .into_iter()
            .any(|group| relation(state, group, row).is_some())
    })
}

/// Findings of one group's strangers.
pub(super) fn judge(facts: &Facts, sockets: &Sockets, group: &Group) -> Vec<Finding> {
    let mut kinds: BTreeMap<Kind<'_>, Vec<u32>> = BTreeMap::new();
    for row in &sockets.rows {
        if let Some(relation) = relation(&facts.state, group, row) {
            let kind = Kind {
                relation,
                address: &row.address,
                uid: row.uid,
                pids: sockets.holders.get(&row.inode).map_or(&[], Vec::as_slice),
            };
            kinds.entry(kind).or_default().push(row.inode);
        }
    }
    kinds
        .iter()
        .map(|(kind, inodes)| finding(facts, sockets, group, kind, inodes))
        .collect()
}

fn relation(state: &Service, group: &Group, row: &ListenerRow) -> Option<Relation> {
    if row.address == group.address {
        return (!is_registered(group, row.cookie)).then_some(Relation::Within);
    }
    // Between the service's own addresses that is what the operator asked for.
    if state.definition.addresses.contains(&row.address) {
        None
    } else if row.address.is_shadow_of(&group.address) {
        Some(Relation::Shadows)
    } else if group.address.is_shadow_of(&row.address) {
        Some(Relation::IsShadowed)
    } else {
        None
    }
}

fn is_registered(group: &Group, cookie: SocketCookie) -> bool {
    group
        .slots
        .values()
        .any(|listener| listener.cookie == cookie)
}

fn finding(
    facts: &Facts,
    sockets: &Sockets,
    group: &Group,
    kind: &Kind<'_>,
    inodes: &[u32],
) -> Finding {
    let subject = facts.subject(group);
    let number = count(inodes.len(), "listener");
    let identity = format!(
        "{}, uid {}, {}",
        list("inode", inodes),
        kind.uid,
        held_by(kind.pids)
    );
    let owner = facts.state.definition.owner;
    match kind.relation {
        Relation::Within if kind.uid != owner.0 => Finding::error(
            subject,
            format!(
                "{number} of another user than the service's, uid {owner}, at this address: \
                 {identity}. The kernel keeps users' groups apart: it cannot be registered, and \
                 while it is there no other user's listener can be bound"
            ),
        )
        .hint("run the server as the service's user, or add the service with --user"),
        Relation::Within if facts.state.instances.is_empty() => Finding::note(
            subject,
            format!("{number} at this address, which nobody registered yet: {identity}"),
        ),
        Relation::Within => {
            let out_of_reach = members::has_serving(facts, sockets, group) || facts.parks(group);
            let gets = if out_of_reach {
                "gets no connections"
            } else {
                "can get connections only as long as no instance serves"
            };
            let finding = Finding::warning(
                subject,
                format!("{number} in the group that nobody registered {gets}: {identity}"),
            );
            match kind.pids.first() {
                Some(pid) => finding.hint(format!(
                    "register it: reuseportctl register {} --pid {pid}; or stop it",
                    facts.state.name()
                )),
                None => finding,
            }
        }
        Relation::Shadows => Finding::warning(
            subject,
            format!(
                "{number} at {} takes the connections to that address away, being bound more \
                 specifically: {identity}",
                kind.address
            ),
        )
        .hint("close it, or make its address one of the service's"),
        Relation::IsShadowed => Finding::note(
            subject,
            format!(
                "{number} at {} gets no connections to this address, the service being bound more \
                 specifically: {identity}",
                kind.address
            ),
        ),
    }
}

fn held_by(pids: &[u32]) -> String {
    if pids.is_empty() {
        "held by no process that can be seen".to_owned()
    } else {
        format!("held by {}", list("pid", pids))
    }
}

#[cfg(test)]
mod tests {
    use super::{super::fixture, *};
    use crate::daemon::doctor::finding::Level;

    fn found(facts: &Facts) -> Vec<Finding> {
        let sockets = facts.sockets.as_ref().expect("sockets");
        judge(facts, sockets, &facts.state.groups[0])
    }

    fn only(facts: &Facts) -> Finding {
        let mut found = found(facts);
        assert_eq!(found.len(), 1, "{found:?}");
        found.remove(0)
    }

    #[test]
    fn registered_listeners_are_no_strangers() {
        let facts = fixture::serving();
        assert_eq!(found(&facts), []);
        let rows = &facts.sockets.as_ref().expect("sockets").rows;
        assert_eq!(all(&facts.state, rows).count(), 0);
    }

    #[test]
    fn one_that_nobody_registered_gets_nothing() {
        let mut facts = fixture::serving();
        fixture::stranger(&mut facts, "0.0.0.0:7777", 51, &[200]);
        let finding = only(&facts);
        assert_eq!(finding.level, Level::Warning);
        assert_eq!(
            finding.message,
            "1 listener in the group that nobody registered gets no connections: inode 51, uid 0, \
             held by pid 200"
        );
        assert!(
            finding
                .hint
                .is_some_and(|it| it.contains("register game --pid 200"))
        );
    }

    #[test]
    fn those_of_one_process_are_said_at_once() {
        let mut facts = fixture::serving();
        for inode in [51, 52, 53] {
            fixture::stranger(&mut facts, "0.0.0.0:7777", inode, &[200, 201]);
        }
        fixture::stranger(&mut facts, "0.0.0.0:7777", 54, &[]);
        let messages: Vec<_> = found(&facts).into_iter().map(|it| it.message).collect();
        assert_eq!(messages.len(), 2, "{messages:?}");
        assert!(messages[0].ends_with("inode 54, uid 0, held by no process that can be seen"));
        assert!(messages[1].ends_with("inodes 51, 52 and 53, uid 0, held by pids 200 and 201"));
    }

    #[test]
    fn while_nobody_serves_it_may_get_some() {
        let mut facts = fixture::serving();
        fixture::rows(&mut facts).clear();
        fixture::stranger(&mut facts, "0.0.0.0:7777", 51, &[200]);
        assert!(
            only(&facts)
                .message
                .contains("as long as no instance serves")
        );

        let mut facts = fixture::empty();
        fixture::stranger(&mut facts, "0.0.0.0:7777", 51, &[200]);
        assert_eq!(only(&facts).level, Level::Note);
    }

    #[test]
    fn another_users_listener_is_an_error() {
        let mut facts = fixture::serving();
        fixture::stranger(&mut facts, "0.0.0.0:7777", 51, &[200]).uid = 1_000;
        let finding = only(&facts);
        assert_eq!(finding.level, Level::Error);
        assert!(finding.message.contains("uid 1000"), "{finding:?}");
    }

    #[test]
    fn a_more_specific_one_takes_away_and_a_less_specific_one_loses() {
        let mut facts = fixture::serving();
        fixture::stranger(&mut facts, "127.0.0.1:7777", 51, &[200]);
        fixture::stranger(&mut facts, "[::]:7777", 52, &[200]);
        fixture::stranger(&mut facts, "127.0.0.1:7778", 53, &[200]);
        fixture::stranger(&mut facts, "[::]:7777,v6only", 54, &[200]);
        let found = found(&facts);
        let levels: Vec<_> = found.iter().map(|it| it.level).collect();
        assert_eq!(levels, [Level::Warning, Level::Note], "{found:?}");
        assert!(found[0].message.contains("127.0.0.1:7777 takes"));
        assert!(found[1].message.contains("[::]:7777 gets no connections"));
        let rows = &facts.sockets.as_ref().expect("sockets").rows;
        assert_eq!(all(&facts.state, rows).count(), 2);
    }

    #[test]
    fn a_services_own_addresses_do_not_shadow_each_other() {
        let mut facts = fixture::serving();
        let address: Address = "127.0.0.1:7777".parse().expect("an address");
        facts.state.definition.addresses.push(address);
        fixture::stranger(&mut facts, "127.0.0.1:7777", 51, &[200]);
        assert_eq!(found(&facts), []);
    }
}
