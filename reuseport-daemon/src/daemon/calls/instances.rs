//! Instances register and are released.

use std::sync::Arc;

use tracing::info;

use super::{changed, parse};
use crate::{
    api::{
        Answer, Caller, Replier, Scope,
        wire::{Failure, Register, Registered, Release, Reply},
    },
    daemon::{
        driver::Driver,
        failure,
        inspect::{Inspection, Look},
    },
    domain::{self, Decision, Generation, Label, Refusal, ServiceName},
    sys::passed::{Closer, Passed},
};

impl Driver {
    pub(super) fn register(
        &mut self,
        caller: &Caller,
        scope: Scope,
        parameters: &Register,
        descriptors: Vec<Passed>,
        closer: Arc<Closer>,
        replier: Replier,
    ) {
        let label = label(parameters.label.as_deref());
        let look = look(caller, scope, parameters, descriptors, closer);
        let prepared = label.and_then(|label| {
            let name = self.service(scope, &parameters.service)?.name().clone();
            Ok((name, label, look?))
        });
        match prepared {
            Err(failure) => replier.finish(Err(failure)),
            Ok((name, label, look)) => self.look(&name, look, move |driver, name, found| {
                replier.finish(found.and_then(|found| {
                    let (generation, new) = driver.take_in(name, label.as_ref(), &found)?;
                    driver.registered(name, generation, new)
                }));
            }),
        }
    }

    /// Takes in an instance that has been looked at. Tells its generation, and whether anything
    /// changed.
    pub(in crate::daemon) fn take_in(
        &mut self,
        name: &ServiceName,
        label: Option<&Label>,
        found: &Inspection,
    ) -> Result<(Generation, bool), Failure> {
        let (decision, generation) = self.decide_registration(name, label, found)?;
        if decision.effects.is_empty() {
            return Ok((generation, false));
        }
        let managed = self.managed_mut(name)?;
        let performed = managed
            .perform(&decision, &found.sockets)
            .map_err(|error| {
                let address = managed.state.definition.addresses.first();
                failure::not_performed(&error, address)
            })?;
        self.commit(name, decision, &performed);
        let state = &self.managed_mut(name)?.state;
        info!(
            service = %name, instance = %state.label(generation), generation = generation.0,
            pid = found.process.id().pid, state = state.instances[&generation].state.as_str(),
            listeners = state.listeners_of(generation).count(), "instance registered"
        );
        Ok((generation, true))
    }

    /// What it would take to take it in.
    pub(super) fn decide_registration(
        &self,
        name: &ServiceName,
        label: Option<&Label>,
        found: &Inspection,
    ) -> Result<(Decision, Generation), Failure> {
        let state = &self.managed(name)?.state;
        let process = found.process.id();
        // One that is an instance already keeps what it is called; and the name of a unit whose earlier
        // process is one still stays with that.
        let default = found.label.as_ref();
        let default = default
            .filter(|it| state.find_process(process).is_none() && state.holder_of(it).is_none());
        let label = label.or(default);
        Ok(domain::register(state, process, label, &found.listeners)?)
    }

    fn registered(&self, name: &ServiceName, generation: Generation, new: bool) -> Answer {
        let state = &self.managed(name)?.state;
        let listeners = state.listeners_of(generation).count();
        let word = state.instances.get(&generation).map(|it| it.state.as_str());
        Ok(Reply::Registered(Registered {
            changed: new,
            label: state.label(generation).to_string(),
            generation: generation.0,
            state: word.unwrap_or_default().to_owned(),
            listeners: u32::try_from(listeners).unwrap_or(u32::MAX),
        }))
    }

    pub(super) fn release(&mut self, parameters: &Release) -> Answer {
        let label: Label = parse("label", &parameters.label)?;
        let managed = self.service(Scope::All, &parameters.service)?;
        let name = managed.name().clone();
        let decision = match domain::release(&managed.state, &label) {
            Ok(decision) => decision,
            Err(Refusal::UnknownInstance { .. }) => {
                return Ok(changed(false, format!("{name} has no instance {label}")));
            }
            Err(refusal) => return Err(refusal.into()),
        };
        self.apply(&name, decision)
            .map_err(|error| failure::not_performed(&error, None))?;
        info!(service = %name, instance = %label, "instance released");
        Ok(changed(
            true,
            format!("instance {label} of {name} released"),
        ))
    }
}

/// A label that may be left out.
pub(super) fn label(text: Option<&str>) -> Result<Option<Label>, Failure> {
    text.map(|text| parse("label", text)).transpose()
}

fn look(
    caller: &Caller,
    scope: Scope,
    parameters: &Register,
    descriptors: Vec<Passed>,
    closer: Arc<Closer>,
) -> Result<Look, Failure> {
    let on_behalf_of = match scope {
        Scope::All => None,
        Scope::OwnedBy(uid) => Some(uid),
    };
    match (parameters.pid, &parameters.unit, descriptors.is_empty()) {
        (Some(pid), None, true) => Ok(Look::Pid {
            pid,
            on_behalf_of,
            closer,
        }),
        (None, Some(unit), true) => Ok(Look::Unit {
            unit: parse("unit", unit)?,
            on_behalf_of,
            closer,
        }),
        (None, None, false) => Ok(Look::Passed {
            process: caller.process.ok_or(Refusal::CallerGone)?,
            descriptors,
        }),
        (Some(_) | None, _, _) => Err(Refusal::PidOrDescriptors.into()),
    }
}
