//! Taking an instance in, and letting one go.

use std::collections::BTreeSet;

use super::{
    Decision, Effect, Generation, Instance, InstanceState, Label, Listener, ListenerFault, Placed,
    ProcessId, Refusal, Service, Slot, candidate, steer,
};

/// Registers a process with its listeners. The first instance serves at once, later ones stand by.
/// A process that is an instance already gets its listeners brought up to date.
///
/// # Errors
///
/// A refusal where the label or a listener belongs to another instance, where the process has ended,
/// where the slots do not suffice, or while a migration is under way.
pub fn register(
    service: &Service,
    process: ProcessId,
    label: Option<&Label>,
    listeners: &[Placed],
) -> Result<(Decision, Generation), Refusal> {
    let mut decision = Decision::unchanged(service);
    let next = &mut decision.next;

    let known = service.find_process(process);
    let generation = match known {
        Some(generation) if service.lives(generation) => generation,
        Some(gone) => return Err(Refusal::InstanceGone(service.label(gone))),
        None => next_generation(service)?,
    };
    let instance = match service.instances.get(&generation) {
        Some(known) => known.clone(),
        None => Instance {
            label: label.map_or_else(|| unused_label(service, generation), Label::clone),
            process,
            state: InstanceState::Standby,
        },
    };
    if let Some(label) = label
        && *label != instance.label
    {
        return Err(Refusal::LabelDiffers {
            pid: process.pid,
            label: instance.label,
        });
    }
    check_label(service, generation, &instance.label)?;
    check_shared(service, generation, listeners)?;

    let mut effects = Vec::new();
    for gone in service.in_state(InstanceState::Gone) {
        if service.instances[&gone].label == instance.label {
            effects.append(&mut steer::forget(next, gone));
        }
    }
    let (mut inserts, mut clears) = place(next, generation, listeners)?;
    if known.is_some() && inserts.is_empty() && clears.is_empty() {
        return Ok((decision, generation));
    }
    service.check_idle()?;

    if known.is_none() {
        next.newest = generation;
        next.instances.insert(generation, instance);
        effects.push(Effect::RecordGeneration(generation));
    }
    let has_new = !inserts.is_empty();
    effects.append(&mut inserts);
    if has_new && next.instances[&generation].state == InstanceState::Retired {
        // It listens anew, and can take over again like any other.
        steer::set_state(next, generation, InstanceState::Standby);
    }
    if next.in_state(InstanceState::Serving).next().is_none() {
        steer::set_state(next, generation, InstanceState::Serving);
        for gone in service.in_state(InstanceState::Gone) {
            effects.append(&mut steer::forget(next, gone));
        }
    }
    effects.append(&mut steer::steer_to_serving(next));
    // Only now: a group that had no program keeps hashing over its sockets until its table is true.
    for group in 0..next.groups.len() {
        if let Some(placed) = listeners.iter().find(|it| it.group == group) {
            effects.push(Effect::Attach {
                group,
                cookie: placed.cookie,
            });
        }
    }
    // Only now: killed before, the next start finds slots that belong to nobody and clears them. An
    // instance whose record is there has all its listeners in place, and its groups a program.
    let instance = next.instances[&generation].clone();
    if service.instances.get(&generation) != Some(&instance) {
        effects.push(Effect::RecordInstance {
            generation,
            instance,
        });
    }
    // Last, since what has been taken out of a slot cannot be put back.
    effects.append(&mut clears);
    decision.effects = effects;
    Ok((decision, generation))
}

/// Forgets an instance.
///
/// # Errors
///
/// A refusal while it serves, or while a migration drains it. One that is left from a migration
/// whose time ran out can be released: its listeners stay as they are, only nobody waits for them.
pub fn release(service: &Service, label: &Label) -> Result<Decision, Refusal> {
    let generation = service.find(label)?;
    match service.instances[&generation].state {
        InstanceState::Serving => return Err(Refusal::InstanceServes(label.clone())),
        InstanceState::Draining if service.migration.is_some() => {
            return Err(Refusal::InstanceDrains(label.clone()));
        }
        InstanceState::Standby
        | InstanceState::Draining
        | InstanceState::Retired
        | InstanceState::Gone => {}
    }
    let mut decision = Decision::unchanged(service);
    decision.effects = steer::forget(&mut decision.next, generation);
    Ok(decision)
}

fn next_generation(service: &Service) -> Result<Generation, Refusal> {
    let next = service.newest.0.checked_add(1).map(Generation);
    next.ok_or_else(|| Refusal::GenerationsSpent(service.name().clone()))
}

/// The label of an instance that was given none: its generation, unless somebody chose that.
fn unused_label(service: &Service, generation: Generation) -> Label {
    let label = Label::of_generation(generation);
    let taken = |label: &Label| service.find(label).is_ok();
    if taken(&label) {
        // Higher generations are nobody's yet, so this ends.
        return unused_label(service, Generation(generation.0.saturating_add(1)));
    }
    label
}

fn check_label(service: &Service, generation: Generation, label: &Label) -> Result<(), Refusal> {
    match service.holder_of(label) {
        Some((holder, instance)) if holder != generation => Err(Refusal::LabelTaken {
            label: label.clone(),
            pid: instance.process.pid,
        }),
        Some(_) | None => Ok(()),
    }
}

fn check_shared(
    service: &Service,
    generation: Generation,
    listeners: &[Placed],
) -> Result<(), Refusal> {
    for placed in listeners {
        let Some(group) = service.groups.get(placed.group) else {
            continue;
        };
        let holder = group
            .slots
            .values()
            .find(|it| it.cookie == placed.cookie && it.generation != generation);
        if let Some(holder) = holder {
            let fault = ListenerFault::Shared(service.label(holder.generation));
            return Err(candidate::unfit(
                &service.definition,
                Some(&group.address),
                fault,
            ));
        }
    }
    Ok(())
}

/// Gives every listener that has no slot one, and takes those away that are no longer there.
fn place(
    next: &mut Service,
    generation: Generation,
    listeners: &[Placed],
) -> Result<(Vec<Effect>, Vec<Effect>), Refusal> {
    let slots = next.definition.slots;
    let (mut inserts, mut clears) = (Vec::new(), Vec::new());
    for (index, group) in next.groups.iter_mut().enumerate() {
        let wanted: BTreeSet<_> = listeners
            .iter()
            .filter(|it| it.group == index)
            .map(|it| it.cookie)
            .collect();
        let placed: Vec<Slot> = group.slots_of(generation);
        let held: BTreeSet<_> = placed.iter().map(|slot| group.slots[slot].cookie).collect();
        let missing: Vec<_> = wanted.difference(&held).copied().collect();
        let free: Vec<Slot> = group.free_slots(slots).take(missing.len()).collect();
        if free.len() < missing.len() {
            return Err(Refusal::SlotsFull {
                address: group.address.clone(),
                need: missing.len(),
                free: free.len(),
                slots,
            });
        }
        for slot in placed {
            if !wanted.contains(&group.slots[&slot].cookie) {
                group.slots.remove(&slot);
                clears.push(Effect::Clear { group: index, slot });
            }
        }
        for (slot, cookie) in free.into_iter().zip(missing) {
            let listener = Listener { cookie, generation };
            group.slots.insert(slot, listener);
            inserts.push(Effect::Insert {
                group: index,
                slot,
                listener,
            });
        }
    }
    Ok((inserts, clears))
}

#[cfg(test)]
mod tests;
