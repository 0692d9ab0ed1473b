//! Processes receive connections, and acknowledge them.

use std::sync::Arc;

use crate::{
    api::{
        Caller, Replier, Scope,
        wire::{Acknowledge, Failure, ServiceRef},
    },
    daemon::{driver::Driver, handoff::Handoff},
    domain::{ProcessId, Refusal},
};

impl Driver {
    pub(super) fn receive(
        &self,
        caller: &Caller,
        scope: Scope,
        parameters: &ServiceRef,
        replier: Replier,
    ) {
        match self.desk_of(caller, scope, &parameters.service) {
            Err(failure) => replier.finish(Err(failure)),
            Ok((handoff, process)) => handoff.subscribe(process, replier, self.stopped.clone()),
        }
    }

    pub(super) fn acknowledge(
        &self,
        caller: &Caller,
        scope: Scope,
        parameters: &Acknowledge,
        replier: Replier,
    ) {
        match self.desk_of(caller, scope, &parameters.service) {
            Err(failure) => replier.finish(Err(failure)),
            Ok((handoff, process)) => {
                handoff.acknowledge(parameters.id, process, replier, self.stopped.clone());
            }
        }
    }

    fn desk_of(
        &self,
        caller: &Caller,
        scope: Scope,
        service: &str,
    ) -> Result<(Arc<Handoff>, ProcessId), Failure> {
        let managed = self.service(scope, service)?;
        let process = caller.process.ok_or(Refusal::CallerGone)?;
        Ok((Arc::clone(&managed.handoff), process))
    }
}
