//! Services come and go.

use std::{collections::BTreeSet, path::Path, sync::Arc, time::Duration};

use tracing::{error, info, warn};

use super::{changed, parse, service_name};
use crate::{
    api::{
        Answer, Caller, Replier,
        wire::{AddService, Failure, Reply},
    },
    chain::chain,
    daemon::{
        attachment::Members,
        driver::Driver,
        failure::{self, bad_parameter, failed},
        parking::rehearse,
    },
    domain::{Address, Definition, Refusal, ServiceName, Uid},
    steering::{GroupMaps, ProgramKind},
    sys::{
        netns::{Netns, NetnsError},
        users,
    },
};

/// How long to wait for parking listeners that are about to be closed.
const PAUSE: Duration = Duration::from_millis(10);

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
        let parks = definition.park_timeout.is_some();
        if parks {
            rehearse(&definition, &netns).map_err(|error| failure::not_parked(&error.into()))?;
        }
        let (maps, state) = self.pins.create(&self.loader, &definition)?;
        let kind = maps.groups().first().map(GroupMaps::kind);
        self.holders.prepare(&netns);
        let lot = self.lot(&definition.name, &netns);
        let managed = self.managed_of(state, maps, netns, lot);
        let name = definition.name;
        self.services.insert(name.clone(), managed);
        let published = if parks && kind == Some(ProgramKind::Select) {
            Err(failure::cannot_park())
        } else {
            self.publish(&name)
        };
        if let Err(failure) = published {
            // Nothing else has come of it.
            if let Some(mut managed) = self.services.remove(&name) {
                managed.lot.close_all();
            }
            if let Err(error) = self.pins.clear_aside(&name) {
                warn!(service = %name, error = chain(&error), "pins of no service are left");
            }
            return Err(failure);
        }
        self.watch_log(&self.services[&name].maps);
        self.watch_units(&name);
        let program = kind.map(ProgramKind::as_str);
        info!(service = %name, program, "service added");
        Ok(true)
    }

    /// Makes a service one that the next start takes up, and lets it park. In this order: what waits in a
    /// listener without its program cannot be moved when that is closed, and a daemon that is killed
    /// before the program is attached leaves just that. It has to be a service's, to be taken up.
    fn publish(&mut self, name: &ServiceName) -> Result<(), Failure> {
        self.pins.publish(name)?;
        self.park_first(name).map_err(|error| {
            if let Err(error) = self.pins.set_aside(name) {
                warn!(service = %name, error = chain(&error), "pins of no service are left");
            }
            failure::not_parked(&error)
        })
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

    pub(super) fn remove_service(&mut self, name: &str, replier: Replier) {
        match service_name(name) {
            Ok(name) if self.services.contains_key(&name) => self.remove_when_quiet(&name, replier),
            Ok(name) => replier.finish(self.remove_what_is_left(&name)),
            Err(failure) => replier.finish(Err(failure)),
        }
    }

    /// Removes what there is of a service that was not taken up.
    fn remove_what_is_left(&mut self, name: &ServiceName) -> Answer {
        if self.left_alone.contains_key(name) {
            self.pins.set_aside(name)?;
            self.left_alone.remove(name);
            self.left.close(name);
            info!(service = %name, "a service that was left alone is removed");
            self.unpin(name)?;
            let message = format!(
                "service {name} removed; its program steers on until its listeners are closed"
            );
            return Ok(changed(true, message));
        }
        let left = self.pins.has_aside(name);
        self.unpin(name)?;
        Ok(changed(left, format!("there is no service {name}")))
    }

    /// Removes a service, when no packet is on its way to its parking listeners any more.
    fn remove_when_quiet(&mut self, name: &ServiceName, replier: Replier) {
        let Some(managed) = self.services.get(name) else {
            return replier.finish(Ok(gone_meanwhile(name)));
        };
        if let Err(refusal) = managed.state.check_idle() {
            return replier.finish(Err(refusal.into()));
        }
        // What waits in one whose place another has taken is moved by the program.
        if managed.lot.is_leaving() {
            let name = name.clone();
            return self.later(PAUSE, move |driver| {
                driver.remove_when_quiet(&name, replier);
            });
        }
        if !managed.lot.ignore_packets() {
            return replier.finish(self.remove_now(name));
        }
        self.after_grace(name, move |driver, name, waited| {
            replier.finish(match waited {
                Ok(waited) => {
                    if let Err(error) = waited {
                        warn!(service = %name, %error, "parking listeners are closed without a wait");
                    }
                    driver.remove_now(name)
                }
                Err(_) => Ok(gone_meanwhile(name)),
            });
        });
    }

    fn remove_now(&mut self, name: &ServiceName) -> Answer {
        let members = match self.stop_serving(name) {
            Ok(members) => members,
            Err(failure) => {
                self.managed(name)?.lot.take_packets();
                return Err(failure);
            }
        };
        if let Err(failure) = self.take_away(name, &members) {
            self.park(name);
            return Err(failure);
        }
        self.services.remove(name);
        info!(service = %name, "service removed");
        self.unpin(name)?;
        Ok(changed(true, format!("service {name} removed")))
    }

    /// Closes the parking listeners of a service that has nothing under way. Tells of whose groups its
    /// programs are then to be taken.
    fn stop_serving(&mut self, name: &ServiceName) -> Result<Members, Failure> {
        let managed = self.managed(name)?;
        managed.state.check_idle()?;
        // First, so that what follows takes nothing that could have run out.
        let members = Members::of(managed)?;
        self.stop_parking(name)
            .map_err(|error| failure::not_performed(&error, None))?;
        Ok(members)
    }

    /// Takes a service's programs off its groups, and its pins from where a start looks for them; or
    /// neither.
    fn take_away(&self, name: &ServiceName, members: &Members) -> Result<(), Failure> {
        let managed = self.managed(name)?;
        let taken_away = members
            .detach()
            .and_then(|()| self.pins.set_aside(name))
            .map_err(Failure::from);
        if taken_away.is_err()
            && let Err(error) = members.attach(managed)
        {
            error!(service = %name, error = chain(&error), "its programs are not attached");
        }
        taken_away
    }

    /// Takes the pins of a service away that is no more.
    fn unpin(&self, name: &ServiceName) -> Result<(), Failure> {
        let cleared = self.pins.clear_aside(name);
        cleared.map_err(|error| failure::pins_left(name, &error))
    }
}

/// Another call has removed it.
fn gone_meanwhile(name: &ServiceName) -> Reply {
    changed(false, format!("there is no service {name}"))
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
