//! Services come and go.

use std::{collections::BTreeSet, path::Path, sync::Arc, time::Duration};

use tracing::info;

use super::{changed, parse, service_name};
use crate::{
    api::{
        Answer, Caller,
        wire::{AddService, Failure},
    },
    daemon::{
        attachment,
        driver::Driver,
        failure::{self, bad_parameter, failed},
        managed::Managed,
    },
    domain::{Address, Definition, Refusal, Uid},
    steering::{GroupMaps, ProgramKind},
    sys::{
        memory,
        netns::{Netns, NetnsError},
        users,
    },
};

impl Driver {
    pub(super) fn add_service(&mut self, caller: &Caller, parameters: &AddService) -> Answer {
        let definition = definition(caller, parameters)?;
        let (name, added) = (definition.name.clone(), self.add(definition)?);
        let message = if added {
            format!("service {name} added")
        } else {
            format!("service {name} is there already")
        };
        Ok(changed(added, message))
    }

    /// Makes a service, unless it is there already.
    pub(in crate::daemon) fn add(&mut self, definition: Definition) -> Result<bool, Failure> {
        if let Some(there) = self.services.get(&definition.name) {
            return match there.state.definition.difference(&definition) {
                None => Ok(false),
                Some(what) => Err(Refusal::ServiceDiffers {
                    name: definition.name,
                    what,
                }
                .into()),
            };
        }
        if let Some(reason) = self.left_alone.get(&definition.name) {
            return Err(Refusal::LeftAlone {
                name: definition.name,
                reason: reason.clone(),
            }
            .into());
        }
        let netns = self.netns_of(&definition)?;
        self.check_free(&definition, &netns)?;
        let (maps, state) = self.pins.create(&self.loader, &definition)?;
        memory::give_back();
        let kind = maps.groups().first().map(GroupMaps::kind);
        if definition.park_timeout.is_some() && kind == Some(ProgramKind::Select) {
            self.pins.remove(&definition.name)?;
            return Err(failure::cannot_park());
        }
        self.watch_log(&maps);
        let exits = self.exits.clone();
        self.switch.prepare(&netns);
        let switch = Arc::clone(&self.switch);
        let lot = self.lot(&definition.name, &netns);
        let managed = Managed::new(state, maps, netns, lot, exits, switch);
        self.services.insert(definition.name.clone(), managed);
        if let Err(error) = self.park_first(&definition.name) {
            // Its parking listeners are closed, and nothing else has come of it.
            self.services.remove(&definition.name);
            self.pins.remove(&definition.name)?;
            return Err(failure::not_parked(&error));
        }
        self.watch_units(&definition.name);
        let program = kind.map(ProgramKind::as_str);
        info!(service = %definition.name, program, "service added");
        Ok(true)
    }

    /// The network namespace that a service is in.
    pub(in crate::daemon) fn netns_of(
        &self,
        definition: &Definition,
    ) -> Result<Arc<Netns>, Failure> {
        match &definition.netns {
            None => Ok(Arc::clone(&self.home)),
            Some(path) => Netns::open(Path::new(path))
                .map(Arc::new)
                .map_err(|error: NetnsError| bad_parameter("netns", &error)),
        }
    }

    /// Two services cannot steer the same group.
    fn check_free(&self, definition: &Definition, netns: &Netns) -> Result<(), Failure> {
        let broken = |error: NetnsError| failed("netns", &error.to_string(), None);
        let ours = netns.identity().map_err(broken)?;
        for managed in self.services.values() {
            let theirs: BTreeSet<&Address> = managed.state.definition.addresses.iter().collect();
            let shared = definition.addresses.iter().find(|it| theirs.contains(it));
            if let Some(address) = shared
                && managed.netns.identity().map_err(broken)? == ours
            {
                return Err(Refusal::AddressTaken {
                    address: address.clone(),
                    owner: managed.name().clone(),
                }
                .into());
            }
        }
        Ok(())
    }

    pub(super) fn remove_service(&mut self, name: &str) -> Answer {
        let name = service_name(name)?;
        if self.left_alone.contains_key(&name) {
            self.pins.remove(&name)?;
            self.left_alone.remove(&name);
            info!(service = %name, "pins removed of a service that was left alone");
            let message = format!(
                "service {name} removed; its program steers on until its listeners are closed"
            );
            return Ok(changed(true, message));
        }
        let Some(managed) = self.services.get(&name) else {
            return Ok(changed(false, format!("there is no service {name}")));
        };
        managed.state.check_idle()?;
        self.stop_parking(&name)
            .map_err(|error| failure::not_performed(&error, None))?;
        let taken_away =
            attachment::remove(self.managed(&name)?).and_then(|()| Ok(self.pins.remove(&name)?));
        if let Err(failure) = taken_away {
            self.park(&name);
            return Err(failure);
        }
        self.services.remove(&name);
        info!(service = %name, "service removed");
        Ok(changed(true, format!("service {name} removed")))
    }
}

fn definition(caller: &Caller, parameters: &AddService) -> Result<Definition, Failure> {
    let owner = match &parameters.user {
        None => Uid(caller.uid),
        Some(user) => users::resolve(user).map_err(|error| bad_parameter("user", &error))?,
    };
    let instances = parameters.instances.as_deref();
    let instances = instances.map(|pattern| parse("instances", pattern));
    let instances = instances.transpose()?;
    Definition::checked(
        service_name(&parameters.name)?,
        parameters
            .listen
            .iter()
            .map(|address| parse("listen", address))
            .collect::<Result<_, _>>()?,
        owner,
        parameters.netns.clone(),
        parameters.slots,
    )
    .and_then(|it| {
        let timeout = parameters.park_timeout_ms.map(Duration::from_millis);
        it.parking(parameters.park, timeout)
    })
    .map(|it| it.of_units(instances))
    .map_err(Failure::from)
}
