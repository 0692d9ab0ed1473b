//! The one task that changes anything: calls and events in, effects and answers out.

use std::{collections::BTreeMap, io, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    task,
};
use tracing::{error, info, warn};

use super::{
    beside::Beside,
    event::{Event, RETRY, again_after, again_later},
    inspect::{Inspection, Look, Sockets},
    managed::{Managed, PerformError, Performed},
    migrate_req::Holders,
    migration_run::Run,
    observe::{self, Seen},
    parking::{Left, Lot, Store},
    probe::Probe,
    wake::{Sleepers, Woken},
    watch::{Exit, Exits},
    watchdog::Watchdog,
};
use crate::{
    api::{Envelope, wire::Failure},
    domain::{self, Decision, Definition, End, InstanceState, Refusal, Service, ServiceName, Wait},
    steering::{Loader, Pins, ServiceMaps},
    sys::{clock, grace::GracePeriod, netns::Netns},
};

/// How the driver goes on once something has been found out beside it.
pub(super) type Then = Box<dyn FnOnce(&mut Driver) + Send>;

/// What comes to the driver.
#[derive(Debug)]
pub(super) struct Inbox {
    pub(super) calls: mpsc::Receiver<Envelope>,
    pub(super) found: mpsc::UnboundedReceiver<Then>,
    pub(super) events: mpsc::UnboundedReceiver<Event>,
    pub(super) exits: mpsc::UnboundedReceiver<Exit>,
}

/// The daemon's state.
#[derive(Debug)]
pub(super) struct Driver {
    pub(super) pins: Pins,
    pub(super) loader: Loader,
    pub(super) grace: GracePeriod,
    pub(super) probe: Probe,
    /// The daemon's own network namespace.
    pub(super) home: Arc<Netns>,
    /// `tcp_migrate_req`, as it is configured.
    pub(super) holders: Arc<Holders>,
    pub(super) services: BTreeMap<ServiceName, Managed>,
    /// The migrations that are under way, as those who asked for them see them.
    pub(super) runs: BTreeMap<ServiceName, Run>,
    /// How many there have been, so that a late event can be told from one in time.
    pub(super) run_count: u64,
    /// Services that are pinned and could not be taken up, and why.
    pub(super) left_alone: BTreeMap<ServiceName, String>,
    /// Who keeps parking listeners when the daemon is gone.
    pub(super) store: Arc<Store>,
    /// Those that an earlier daemon left, of services that are not taken up.
    pub(super) left: Left,
    pub(super) beside: Beside,
    pub(super) found: mpsc::UnboundedSender<Then>,
    pub(super) events: mpsc::UnboundedSender<Event>,
    pub(super) exits: Exits,
    /// True when the daemon is about to stop.
    pub(super) stopped: watch::Receiver<bool>,
}

impl Driver {
    /// Serves calls and events until `stop` resolves. The data path stays as it is.
    pub(super) async fn serve(
        mut self,
        mut inbox: Inbox,
        stop: impl Future<Output = ()>,
        mut watchdog: Watchdog,
    ) {
        tokio::pin!(stop);
        let mut stopped = self.stopped.clone();
        let mut stopping = false;
        loop {
            tokio::select! {
                () = &mut stop => break,
                _ = stopped.wait_for(|it| *it), if !stopping => {
                    stopping = true;
                    self.runs.values_mut().for_each(Run::dismiss);
                }
                Some(then) = inbox.found.recv() => then(&mut self),
                Some(event) = inbox.events.recv() => self.on_event(event),
                Some(exit) = inbox.exits.recv() => self.on_exit(exit),
                Some(envelope) = inbox.calls.recv() => self.on_call(envelope),
                () = watchdog.due() => self.store.tell("WATCHDOG=1"),
                else => break,
            }
        }
        for managed in self.services.values() {
            managed.lot.take_leave();
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Parked {
                service,
                group,
                cookie,
            } => self.on_parked(&service, group, cookie),
            Event::ParkTimeout {
                service,
                group,
                since_ms,
            } => self.on_park_timeout(&service, group, since_ms),
            Event::ParkAgain(service) => self.on_park_again(&service),
            Event::Unparked(service) => self.wake(&service),
            Event::Unit(event) => self.on_unit(event),
            Event::Owed(service) => {
                if let Some(managed) = self.services.get_mut(&service) {
                    managed.pay_or_try_again();
                }
            }
        }
    }

    fn on_seen(&mut self, name: &ServiceName, run: u64, seen: Seen) {
        let Some(managed) = self.services.get(name) else {
            return;
        };
        let Some(current) = self.runs.get_mut(name).filter(|it| it.id == run) else {
            return;
        };
        let observation = current.note(seen);
        let decision = domain::advance(&managed.state, observation, clock::boottime_ms());
        if let Err(failure) = self.apply(name, decision) {
            error!(service = %name, %failure, "a migration cannot go on; trying again");
            let name = name.clone();
            self.later(RETRY, move |driver| {
                driver.on_seen(&name, run, Seen::Missed);
            });
        }
    }

    fn on_exit(&mut self, exit: Exit) {
        let name = &exit.service;
        let Some(managed) = self.services.get(name) else {
            return;
        };
        let Some(generation) = managed.state.find_process(exit.process) else {
            return;
        };
        let instance = &managed.state.instances[&generation];
        info!(
            service = %name, instance = %instance.label, pid = instance.process.pid,
            state = instance.state.as_str(), "process ended"
        );
        let served = instance.state == InstanceState::Serving;
        let decision = domain::process_ended(&managed.state, generation);
        match self.apply(name, decision) {
            Ok(()) if served => {
                self.move_all_parked(name);
                // Whoever has taken over may have closed its listeners long ago.
                self.see_to_closed(name);
            }
            Ok(()) => {}
            Err(failure) => {
                error!(service = %name, %failure, "cannot take leave of an instance; trying again");
                again_later(&self.exits, exit);
                return;
            }
        }
        self.wake(&exit.service);
        self.look_for_units(&exit.service);
    }

    /// A service as the driver holds it, with nothing under way.
    pub(super) fn managed_of(
        &self,
        state: Service,
        maps: ServiceMaps,
        netns: Arc<Netns>,
        lot: Lot,
    ) -> Managed {
        let (events, exits) = (self.events.clone(), self.exits.clone());
        let holders = Arc::clone(&self.holders);
        Managed::new(state, maps, netns, lot, events, exits, holders)
    }

    /// Wakes the acceptors of a service beside the driver, after the kernel may have moved connections
    /// to them that no migration accounts for.
    pub(super) fn wake(&self, name: &ServiceName) {
        let Some(managed) = self.services.get(name) else {
            return;
        };
        let sleepers = Sleepers::of(managed, self.probe.clone());
        let service = name.clone();
        self.beside.run(move || {
            let Woken {
                connections,
                trouble,
            } = sleepers.wake();
            if connections > 0 {
                info!(%service, connections, "woke acceptors that this kernel leaves asleep");
            }
            if let Some(trouble) = trouble {
                warn!(%service, %trouble, "acceptors may be asleep");
            }
        });
    }

    /// Takes a look at a process beside the driver, and then goes on with the call.
    pub(super) fn look(
        &self,
        name: &ServiceName,
        look: Look,
        then: impl FnOnce(&mut Self, &ServiceName, Result<Inspection, Failure>) + Send + 'static,
    ) {
        let take = |definition: &Definition, netns: &Netns| Ok(look.take(definition, netns)?);
        self.find(name, take, then);
    }

    /// Finds something out about a service beside the driver, and then goes on with the call. What
    /// was found of a service says nothing of a later one of its name.
    pub(super) fn find<T: Send + 'static>(
        &self,
        name: &ServiceName,
        find: impl FnOnce(&Definition, &Netns) -> Result<T, Failure> + Send + 'static,
        then: impl FnOnce(&mut Self, &ServiceName, Result<T, Failure>) + Send + 'static,
    ) {
        let Some(managed) = self.services.get(name) else {
            return;
        };
        let definition = managed.state.definition.clone();
        let netns = Arc::clone(&managed.netns);
        let found = self.when_found(managed, then);
        self.beside.run(move || found(find(&definition, &netns)));
    }

    /// Goes on with a service in a grace period's time, however much is being found out meanwhile.
    pub(super) fn after_grace(
        &self,
        name: &ServiceName,
        then: impl FnOnce(&mut Self, &ServiceName, Result<io::Result<()>, Failure>) + Send + 'static,
    ) {
        let Some(managed) = self.services.get(name) else {
            return;
        };
        let (grace, found) = (self.grace, self.when_found(managed, then));
        tokio::spawn(async move {
            let waited = task::spawn_blocking(move || grace.wait()).await;
            found(Ok(waited.unwrap_or_else(|error| Err(error.into()))));
        });
    }

    /// What hands the driver something that was found out about a service, to go on with.
    fn when_found<T: Send + 'static>(
        &self,
        managed: &Managed,
        then: impl FnOnce(&mut Self, &ServiceName, Result<T, Failure>) + Send + 'static,
    ) -> impl FnOnce(Result<T, Failure>) + Send + 'static {
        let name = managed.name().clone();
        let identity = Arc::clone(&managed.identity);
        let to = self.found.clone();
        move |found| {
            let then: Then = Box::new(move |driver| {
                let there = driver.services.get(&name);
                let same = there.is_some_and(|it| Arc::ptr_eq(&it.identity, &identity));
                let gone = Refusal::UnknownService(name.clone());
                then(driver, &name, if same { found } else { Err(gone.into()) });
            });
            // An error means that the daemon is stopping.
            let _ = to.send(then);
        }
    }

    /// Goes on after a pause.
    pub(super) fn later(&self, pause: Duration, then: impl FnOnce(&mut Self) + Send + 'static) {
        again_after(pause, &self.found, Box::new(then) as Then);
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
        let performed = managed.perform(&decision, &Sockets::new())?;
        self.commit(name, decision, &performed);
        Ok(())
    }

    /// Makes a decision that has been performed the truth, answers whoever waits for it, and starts
    /// what it waits for.
    pub(super) fn commit(&mut self, name: &ServiceName, decision: Decision, performed: &Performed) {
        self.follow(name, decision, performed);
        self.park(name);
    }

    fn follow(&mut self, name: &ServiceName, decision: Decision, performed: &Performed) {
        let Some(managed) = self.services.get_mut(name) else {
            return;
        };
        managed.state = decision.next;
        managed.handoff.know(&managed.state);
        if let Some((migration, end)) = decision.end {
            if let Some(run) = self.runs.remove(name) {
                log_end(name, end);
                run.finish(managed, &migration, end);
            }
            managed.units.look_again();
            return;
        }
        if let (Some(run), Some(migration)) = (self.runs.get_mut(name), &managed.state.migration) {
            run.note_switch(performed);
            run.tell(migration);
        }
        if let Some(wait) = decision.wait {
            self.wait(name, wait);
        }
    }

    fn wait(&mut self, name: &ServiceName, wait: Wait) {
        let Some(managed) = self.services.get(name) else {
            return;
        };
        let run = self.runs.entry(name.clone()).or_insert_with(|| {
            // A migration that an earlier daemon began.
            self.run_count += 1;
            let state = &managed.state;
            let from = state.migration.iter().flat_map(|it| &it.from);
            let from = from.map(|it| state.label(*it).to_string()).collect();
            Run::resumed(self.run_count, from)
        });
        run.note_wait(wait);
        let watched = observe::Watched::of(managed, Arc::clone(&run.open), self.probe.clone());
        let (name, run) = (name.clone(), run.id);
        let (grace, to) = (self.grace, self.found.clone());
        tokio::spawn(async move {
            let seen = observe::observe(wait, watched, grace).await;
            let then: Then = Box::new(move |driver| driver.on_seen(&name, run, seen));
            // An error means that the daemon is stopping.
            let _ = to.send(then);
        });
    }
}

fn log_end(name: &ServiceName, end: End) {
    match end {
        End::Done => info!(service = %name, "migration done"),
        End::RolledBack => warn!(service = %name, "migration rolled back"),
        End::TimedOut => warn!(service = %name, "migration not finished in time, nothing lost"),
        End::NotRetired => warn!(service = %name, "migration done but for the old listeners"),
        End::Failed => error!(service = %name, "the new instance ended during its migration"),
    }
}
