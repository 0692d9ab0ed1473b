//! Pointing the steering tables of a service at some of its instances.

use super::{Effect, Generation, InstanceState, Service, Slot, table};

/// Lets the listeners of `instances` serve every group: all tables are written first, then all are
/// flipped, so that the time in which groups disagree is that of the flips alone. Groups whose
/// table says so already are left alone.
pub(super) fn steer(next: &mut Service, instances: &[Generation]) -> Vec<Effect> {
    let mut writes = Vec::new();
    let mut flips = Vec::new();
    for (index, group) in next.groups.iter_mut().enumerate() {
        let live: Vec<Slot> = group
            .slots
            .iter()
            .filter(|(_, listener)| instances.contains(&listener.generation))
            .map(|(slot, _)| *slot)
            .collect();
        let shared = table::share(&group.table, &live);
        if shared == *group.table {
            continue;
        }
        let copy = group.active.other();
        group.active = copy;
        *group.table = shared;
        writes.push(Effect::WriteTable {
            group: index,
            copy,
            table: group.table.clone(),
        });
        flips.push(Effect::Flip { group: index, copy });
    }
    writes.append(&mut flips);
    writes
}

/// Points the tables at whoever serves.
pub(super) fn steer_to_serving(next: &mut Service) -> Vec<Effect> {
    let serving: Vec<Generation> = next.in_state(InstanceState::Serving).collect();
    steer(next, &serving)
}

/// Gives an instance another state, and its record with it.
pub(super) fn set_state(
    next: &mut Service,
    generation: Generation,
    state: InstanceState,
) -> Option<Effect> {
    let instance = next.instances.get_mut(&generation)?;
    if instance.state == state {
        return None;
    }
    instance.state = state;
    Some(Effect::RecordInstance {
        generation,
        instance: instance.clone(),
    })
}

/// Takes an instance's listeners out of their slots.
pub(super) fn clear_slots(next: &mut Service, generation: Generation) -> Vec<Effect> {
    let mut effects = Vec::new();
    for (index, group) in next.groups.iter_mut().enumerate() {
        for slot in group.slots_of(generation) {
            group.slots.remove(&slot);
            effects.push(Effect::Clear { group: index, slot });
        }
    }
    effects
}

/// Forgets an instance and empties its slots. The record goes first: it can be put back if the next
/// effect fails, and slots without an instance are cleared at the next start. The other way round,
/// an instance that lacks some of its listeners would pass for a whole one.
pub(super) fn forget(next: &mut Service, generation: Generation) -> Vec<Effect> {
    let mut effects = Vec::new();
    if next.instances.remove(&generation).is_some() {
        effects.push(Effect::ForgetInstance(generation));
    }
    effects.append(&mut clear_slots(next, generation));
    effects
}
