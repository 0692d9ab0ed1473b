//! What is asked over the control socket, and how it is answered. One file per family of calls.

mod handoff;
mod instances;
mod migrate;
mod services;
mod sysctl;

use super::{
    driver::Driver,
    failure::{bad_parameter, not_permitted},
    managed::Managed,
};
use crate::{
    api::{
        Envelope, Scope,
        wire::{Changed, Failure, Reply, Request},
    },
    domain::{Refusal, ServiceName, Uid},
};

impl Driver {
    /// Answers a call, or sees to it that it will be answered.
    pub(super) fn on_call(&mut self, envelope: Envelope) {
        let Envelope {
            caller,
            scope,
            request,
            fds,
            closer,
            replier,
        } = envelope;
        let answer = match request {
            Request::AddService(parameters) => self.add_service(&caller, &parameters),
            Request::Release(parameters) => self.release(&parameters),
            Request::Rollback(parameters) => self.roll_back(&parameters.service),
            Request::RemoveService(parameters) => {
                return self.remove_service(&parameters.service, replier);
            }
            Request::Register(parameters) => {
                return self.register(&caller, scope, &parameters, fds, closer, replier);
            }
            Request::Migrate(parameters) => {
                return self.migrate(scope, &parameters, closer, replier);
            }
            Request::Receive(parameters) => {
                return self.receive(&caller, scope, &parameters, replier);
            }
            Request::Acknowledge(parameters) => {
                return self.acknowledge(&caller, scope, &parameters, replier);
            }
            Request::Status(filter) => {
                return self.report_status(scope, filter.service.as_deref(), replier);
            }
            Request::Doctor(filter) => {
                return self.examine(scope, filter.service.as_deref(), replier);
            }
            Request::MigrateReq(parameters) => return self.migrate_req(parameters, replier),
        };
        replier.finish(answer);
    }

    /// A service that is known to be there, unless it was removed meanwhile.
    pub(super) fn managed(&self, name: &ServiceName) -> Result<&Managed, Failure> {
        let unknown = || Refusal::UnknownService(name.clone()).into();
        self.services.get(name).ok_or_else(unknown)
    }

    /// The same, to be changed.
    pub(super) fn managed_mut(&mut self, name: &ServiceName) -> Result<&mut Managed, Failure> {
        let unknown = || Refusal::UnknownService(name.clone()).into();
        self.services.get_mut(name).ok_or_else(unknown)
    }

    /// The service of that name, if the call may be about it.
    pub(super) fn service(&self, scope: Scope, name: &str) -> Result<&Managed, Failure> {
        let name = service_name(name)?;
        let managed = self.managed(&name)?;
        if may_see(scope, managed) {
            Ok(managed)
        } else {
            Err(not_permitted(&format!(
                "service {name} belongs to another user"
            )))
        }
    }

    /// The services of that name, or all that the call may be about.
    pub(super) fn services(
        &self,
        scope: Scope,
        name: Option<&str>,
    ) -> Result<Vec<&Managed>, Failure> {
        match name {
            Some(name) => Ok(vec![self.service(scope, name)?]),
            None => Ok(self
                .services
                .values()
                .filter(|managed| may_see(scope, managed))
                .collect()),
        }
    }
}

fn may_see(scope: Scope, managed: &Managed) -> bool {
    match scope {
        Scope::All => true,
        Scope::OwnedBy(uid) => managed.state.definition.owner == Uid(uid),
    }
}

fn service_name(text: &str) -> Result<ServiceName, Failure> {
    parse("service", text)
}

fn parse<T>(what: &str, text: &str) -> Result<T, Failure>
where
    T: std::str::FromStr,
    T::Err: std::error::Error + 'static,
{
    text.parse()
        .map_err(|error: T::Err| bad_parameter(what, &error))
}

fn changed(changed: bool, message: String) -> Reply {
    Reply::Changed(Changed { changed, message })
}
