//! The one task that changes anything: calls and events in, effects and answers out.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::mpsc, task};
use tracing::{error, info, warn};

use super::{
    failure::PerformError,
    inspect::{Inspection, Look},
    managed::{Managed, Performed, Sockets},
    migration_run::Run,
    observe::{self, Seen},
};
use crate::{
    api::{
        Envelope,
        wire::{Failure, Progress},
    },
    domain::{self, Decision, End, ProcessId, ServiceName, Wait},
    steering::{Loader, Pins},
    sys::{clock, grace::GracePeriod, netns::Netns},
};

/// How long the driver waits before it tries again what the kernel refused.
const RETRY: Duration = Duration::from_millis(500);

/// What comes back to the driver from beside it.
pub(super) enum Event {
    /// A process was looked at.
    Looked {
        /// The service that it was looked at for.
        service: ServiceName,
        /// What was found.
        found: Result<Inspection, Failure>,
        /// What to do with it.
        then: Then,
    },
    /// What a migration waited for.
    Seen {
        /// The service.
        service: ServiceName,
        /// Which run waited.
        run: u64,
        /// What was seen.
        seen: Seen,
    },
    /// An instance's process has ended.
    Exited {
        /// The service.
        service: ServiceName,
        /// The process, which tells an instance from a later one of the same number.
        process: ProcessId,
    },
}

/// The rest of a call, after a look.
type Then = Box<dyn FnOnce(&mut Driver, &ServiceName, Result<Inspection, Failure>) + Send>;

/// The daemon's state.
#[derive(Debug)]
pub(super) struct Driver {
    pub(super) pins: Pins,
    pub(super) loader: Loader,
    pub(super) grace: GracePeriod,
    /// The daemon's own network namespace.
    pub(super) home: Arc<Netns>,
    pub(super) services: BTreeMap<ServiceName, Managed>,
    pub(super) events: mpsc::UnboundedSender<Event>,
    /// How many migrations have been run, so that a late event can be told from one in time.
    pub(super) runs: u64,
}

impl Driver {
    /// Serves calls and events until `stop` resolves. The data path stays as it is.
    pub(super) async fn serve(
        mut self,
        mut calls: mpsc::Receiver<Envelope>,
        mut events: mpsc::UnboundedReceiver<Event>,
        stop: impl Future<Output = ()>,
    ) {
        tokio::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                Some(event) = events.recv() => self.on_event(event),
                Some(envelope) = calls.recv() => self.on_call(envelope),
                else => break,
            }
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Looked {
                service,
                found,
                then,
            } => then(self, &service, found),
            Event::Seen { service, run, seen } => self.on_seen(&service, run, seen),
            Event::Exited { service, process } => self.on_exited(&service, process),
        }
    }

    fn on_seen(&mut self, name: &ServiceName, run: u64, seen: Seen) {
        let Some(managed) = self.services.get_mut(name) else {
            return;
        };
        let Some(current) = managed.run.as_mut().filter(|current| current.id == run) else {
            return;
        };
        let observation = current.note(seen);
        let decision = domain::advance(&managed.state, observation, clock::boottime_ms());
        if let Err(failure) = self.apply(name, decision) {
            error!(service = %name, %failure, "a migration cannot go on; trying again");
            self.again_later(Event::Seen {
                service: name.clone(),
                run,
                seen: Seen::Missed,
            });
        }
    }

    fn on_exited(&mut self, name: &ServiceName, process: ProcessId) {
        let Some(managed) = self.services.get(name) else {
            return;
        };
        let Some(generation) = managed.state.find_process(process) else {
            return;
        };
        let instance = &managed.state.instances[&generation];
        info!(
            service = %name, instance = %instance.label, pid = instance.process.pid,
            state = instance.state.as_str(), "process ended"
        );
        let decision = domain::process_ended(&managed.state, generation);
        if let Err(failure) = self.apply(name, decision) {
            error!(service = %name, %failure, "cannot take leave of an instance; trying again");
            self.again_later(Event::Exited {
                service: name.clone(),
                process,
            });
        }
    }

    /// Takes a look beside the driver, and then goes on with the call.
    pub(super) fn look(
        &self,
        name: &ServiceName,
        look: Look,
        then: impl FnOnce(&mut Self, &ServiceName, Result<Inspection, Failure>) + Send + 'static,
    ) {
        let Some(managed) = self.services.get(name) else {
            return;
        };
        let definition = managed.state.definition.clone();
        let netns = Arc::clone(&managed.netns);
        let events = self.events.clone();
        task::spawn_blocking(move || {
            let found = look.take(&definition, &netns).map_err(Failure::from);
            // An error means that the daemon is stopping.
            let _ = events.send(Event::Looked {
                service: definition.name,
                found,
                then: Box::new(then),
            });
        });
    }

    fn again_later(&self, event: Event) {
        let events = self.events.clone();
        tokio::spawn(async move {
            tokio::time::sleep(RETRY).await;
            // An error means that the daemon is stopping.
            let _ = events.send(event);
        });
    }

    /// Performs a decision that needs no sockets, and goes on from there.
    pub(super) fn apply(
        &mut self,
        name: &ServiceName,
        decision: Decision,
    ) -> Result<(), PerformError> {
        let Some(managed) = self.services.get_mut(name) else {
            return Ok(());
        };
        let performed = managed.perform(&decision, &Sockets::new(), &self.events)?;
        self.commit(name, decision, &performed);
        Ok(())
    }

    /// Makes a decision that has been performed the truth, answers whoever waits for it, and starts
    /// what it waits for.
    pub(super) fn commit(&mut self, name: &ServiceName, decision: Decision, performed: &Performed) {
        let Some(managed) = self.services.get_mut(name) else {
            return;
        };
        managed.state = decision.next;
        if let Some((migration, end)) = decision.end {
            if let Some(run) = managed.run.take() {
                log_end(name, end);
                run.finish(managed, &migration, end);
            }
            return;
        }
        if let Some(run) = &mut managed.run {
            run.note_switch(performed);
            if let Some(migration) = &managed.state.migration {
                let tally = migration.tally;
                run.progress(Progress {
                    phase: migration.phase.as_str().to_owned(),
                    elapsed_ms: millis(run.started.elapsed()),
                    handshakes: tally.map(|_| run.open_handshakes()),
                    queued: tally.map(|tally| tally.left.saturating_sub(run.open_handshakes())),
                });
            }
        }
        if let Some(wait) = decision.wait {
            self.wait(name, wait);
        }
    }

    fn wait(&mut self, name: &ServiceName, wait: Wait) {
        let Some(managed) = self.services.get_mut(name) else {
            return;
        };
        if managed.run.is_none() {
            // A migration that an earlier daemon began: nobody waits for its result.
            self.runs += 1;
            managed.run = Some(Run::resumed(self.runs));
        }
        let Some(run) = &mut managed.run else {
            return;
        };
        let (id, open) = (run.id, Arc::clone(&run.open));
        if matches!(wait, Wait::Retirement(_)) {
            run.drained = Some(Instant::now());
        }
        let watched = observe::Watched::of(managed, open);
        let (grace, events, service) = (self.grace, self.events.clone(), name.clone());
        tokio::spawn(async move {
            let seen = observe::observe(wait, watched, grace).await;
            // An error means that the daemon is stopping.
            let _ = events.send(Event::Seen {
                service,
                run: id,
                seen,
            });
        });
    }
}

fn log_end(name: &ServiceName, end: End) {
    match end {
        End::Done => info!(service = %name, "migration done"),
        End::RolledBack => warn!(service = %name, "migration rolled back"),
        End::TimedOut => warn!(service = %name, "migration not finished in time, nothing lost"),
        End::Failed => error!(service = %name, "the new instance ended during its migration"),
    }
}

/// Whole milliseconds.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
