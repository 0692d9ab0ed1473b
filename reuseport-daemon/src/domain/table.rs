//! How a group's buckets are shared among its live listeners.

use std::collections::BTreeMap;

use reuseport_common::{BUCKETS, PARKING_SLOT, SteeringTable};

use super::Slot;

/// Shares the buckets of `old` among `live`, so that
///
/// - every live slot has its share, within one bucket;
/// - a bucket moves only if its slot is not live any more or has more than its share;
/// - the moved buckets are dealt out in turn, so that neighbours differ where they can: a listener
///   that vanishes leaves its connections to several others, and a probe soon meets a live one.
///
/// Without a live slot everything goes to the parking slot.
#[must_use]
pub fn share(old: &SteeringTable, live: &[Slot]) -> SteeringTable {
    if live.is_empty() {
        return SteeringTable::EMPTY;
    }
    let mut room = shares(old, live);
    let mut table = *old;
    let mut free = Vec::new();
    for (bucket, slot) in table.slots.iter().enumerate() {
        match room.get_mut(slot) {
            Some(left) if *left > 0 => *left -= 1,
            Some(_) | None => free.push(bucket),
        }
    }
    let mut takers: Vec<(u16, usize)> = room.into_iter().filter(|(_, left)| *left > 0).collect();
    let mut turn = 0;
    for bucket in free {
        let before = table.slots[(bucket + BUCKETS - 1) % BUCKETS];
        if takers.len() > 1 && takers[turn % takers.len()].0 == before {
            turn += 1;
        }
        turn %= takers.len();
        let (slot, left) = &mut takers[turn];
        table.slots[bucket] = *slot;
        *left -= 1;
        if *left == 0 {
            takers.remove(turn);
        } else {
            turn += 1;
        }
    }
    table
}

/// How many buckets each live slot gets. The shares differ by at most one, and whoever holds more
/// today gets the larger one, so that fewer buckets move.
fn shares(old: &SteeringTable, live: &[Slot]) -> BTreeMap<u16, usize> {
    let mut held: BTreeMap<u16, usize> = live.iter().map(|slot| (slot.0, 0)).collect();
    for slot in &old.slots {
        if let Some(count) = held.get_mut(slot) {
            *count += 1;
        }
    }
    let (share, larger) = (BUCKETS / held.len(), BUCKETS % held.len());
    let mut by_holding: Vec<(u16, usize)> = held.into_iter().collect();
    by_holding.sort_by_key(|(slot, count)| (std::cmp::Reverse(*count), *slot));
    by_holding
        .into_iter()
        .enumerate()
        .map(|(rank, (slot, _))| (slot, share + usize::from(rank < larger)))
        .collect()
}

/// The slots that a table names, parking aside.
#[must_use]
pub fn named(table: &SteeringTable) -> Vec<Slot> {
    let mut slots: Vec<u16> = table.slots.to_vec();
    slots.sort_unstable();
    slots.dedup();
    slots
        .into_iter()
        .filter(|slot| u32::from(*slot) != PARKING_SLOT)
        .map(Slot)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::{collection::btree_set, prelude::*};

    use super::*;

    fn slots() -> impl Strategy<Value = Vec<Slot>> {
        prop_oneof![btree_set(1..64u16, 1..40), btree_set(1..9000u16, 1..4096)]
            .prop_map(|set| set.into_iter().map(Slot).collect())
    }

    fn counts(table: &SteeringTable) -> BTreeMap<u16, usize> {
        let mut counts = BTreeMap::new();
        for slot in table.slots {
            *counts.entry(slot).or_default() += 1;
        }
        counts
    }

    fn assert_fair(table: &SteeringTable, live: &[Slot]) {
        let counts = counts(table);
        let named: Vec<Slot> = counts.keys().map(|slot| Slot(*slot)).collect();
        assert_eq!(named, live, "exactly the live slots are named");
        let (least, most) = (
            counts.values().min().expect("live slots"),
            counts.values().max().expect("live slots"),
        );
        assert!(most - least <= 1, "shares from {least} to {most}");
    }

    #[test]
    fn without_a_live_slot_everything_is_parked() {
        let table = share(&SteeringTable::EMPTY, &[Slot(3)]);
        assert_eq!(share(&table, &[]), SteeringTable::EMPTY);
        assert_eq!(named(&SteeringTable::EMPTY), []);
    }

    #[test]
    fn a_fresh_table_is_interleaved() {
        let live: Vec<Slot> = (1..=7).map(Slot).collect();
        let table = share(&SteeringTable::EMPTY, &live);
        for pair in table.slots.windows(2) {
            assert_ne!(pair[0], pair[1]);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_live_slot_has_its_share(before in slots(), after in slots()) {
            let old = share(&SteeringTable::EMPTY, &before);
            assert_fair(&old, &before);
            assert_fair(&share(&old, &after), &after);
        }

        #[test]
        fn the_same_slots_move_nothing(live in slots()) {
            let table = share(&SteeringTable::EMPTY, &live);
            prop_assert_eq!(share(&table, &live), table);
        }

        #[test]
        fn losing_one_slot_moves_only_its_buckets(live in slots(), pick in any::<prop::sample::Index>()) {
            prop_assume!(live.len() > 1);
            let old = share(&SteeringTable::EMPTY, &live);
            let lost = live[pick.index(live.len())];
            let rest: Vec<Slot> = live.iter().copied().filter(|slot| *slot != lost).collect();
            let new = share(&old, &rest);
            for (was, is) in old.slots.iter().zip(new.slots) {
                prop_assert!(*was == lost.0 || *was == is);
            }
        }

        #[test]
        fn gaining_one_slot_moves_only_to_it(live in slots()) {
            let gained = Slot(9999);
            let old = share(&SteeringTable::EMPTY, &live);
            let more: Vec<Slot> = live.iter().copied().chain([gained]).collect();
            let new = share(&old, &more);
            for (was, is) in old.slots.iter().zip(new.slots) {
                prop_assert!(is == gained.0 || *was == is);
            }
        }

        #[test]
        fn what_one_listener_leaves_goes_to_many(live in btree_set(1..200u16, 10..40)) {
            let live: Vec<Slot> = live.into_iter().map(Slot).collect();
            let old = share(&SteeringTable::EMPTY, &live);
            let new = share(&old, &live[1..]);
            let heirs: BTreeSet<u16> = old.slots.iter().zip(new.slots)
                .filter(|(was, _)| **was == live[0].0)
                .map(|(_, is)| is)
                .collect();
            prop_assert!(heirs.len() >= live.len() / 2);
        }
    }
}
