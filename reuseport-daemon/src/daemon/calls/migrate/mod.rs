//! A service moves.

mod joining;
mod rollback;
mod wanted;

use std::sync::Arc;

use tracing::{info, warn};

use self::wanted::{Target, Wanted};
use crate::{
    api::{
        Replier, Scope,
        wire::{Failure, Migrate, MigrationResult},
    },
    chain::chain,
    daemon::{
        counters::Counters,
        driver::Driver,
        failure::{self, failed},
        handoff::Handoff,
        inspect::{Inspection, Look, Sockets},
        migration_run::Run,
        progress::tell_phase,
        session_wait::SessionWait,
        settings::{Compared, Comparison},
    },
    domain::{
        self, Decision, Drain, Generation, InstanceState, Label, Options, ProcessId, Refusal,
        Service, ServiceName, Start,
    },
    steering::ProgramKind,
    sys::passed::Closer,
};

/// A `Migrate` call on its way. Nothing has changed yet.
struct Call {
    to: Destination,
    wanted: Wanted,
    /// What closes duplicates, before the call is answered.
    closer: Arc<Closer>,
    replier: Replier,
}

/// Where it goes.
enum Destination {
    /// To a registered instance.
    Instance(Label),
    /// To a process that is registered on the way, and duplicates of its listeners.
    Process {
        label: Option<Label>,
        found: Inspection,
    },
}

/// An instance that has to have receivers.
struct Receiving {
    handoff: Arc<Handoff>,
    process: ProcessId,
    label: Label,
}

impl Receiving {
    /// Looks whether it has. It looks into `/proc`.
    fn check(self) -> Result<(), Refusal> {
        match self.handoff.receivers_of(self.process) {
            0 => Err(Refusal::NoReceiver(self.label)),
            _ => Ok(()),
        }
    }
}

impl Driver {
    pub(super) fn migrate(
        &mut self,
        scope: Scope,
        parameters: &Migrate,
        closer: Arc<Closer>,
        replier: Replier,
    ) {
        let prepared = wanted::read(parameters).and_then(|(target, wanted)| {
            let managed = self.service(scope, &parameters.service)?;
            Ok((managed.name().clone(), target, wanted))
        });
        let (name, target, wanted) = match prepared {
            Err(failure) => return replier.finish(Err(failure)),
            Ok(prepared) => prepared,
        };
        let wait = self.session_wait(&wanted);
        if let Some(run) = self.unattended(&name, &target, &wanted) {
            return run.attend(replier, wait);
        }
        // Refused before anything is looked at, since the look may lead to a registration.
        let idle = self
            .managed(&name)
            .and_then(|it| Ok(it.state.check_idle()?));
        match (idle, target) {
            (Err(failure), _) => replier.finish(Err(failure)),
            (Ok(()), Target::Label(label)) => {
                let to = Destination::Instance(label);
                let call = Call {
                    to,
                    wanted,
                    closer,
                    replier,
                };
                self.compare(&name, call);
            }
            (Ok(()), Target::Pid { pid, label }) => {
                let look = Look::Pid {
                    pid,
                    on_behalf_of: None,
                    closer: Arc::clone(&closer),
                };
                self.migrate_to_process(&name, look, label, wanted, closer, replier);
            }
            (Ok(()), Target::Unit { unit, label }) => {
                let look = Look::Unit {
                    unit,
                    on_behalf_of: None,
                    closer: Arc::clone(&closer),
                };
                self.migrate_to_process(&name, look, label, wanted, closer, replier);
            }
        }
    }

    fn migrate_to_process(
        &self,
        name: &ServiceName,
        look: Look,
        label: Option<Label>,
        wanted: Wanted,
        closer: Arc<Closer>,
        replier: Replier,
    ) {
        self.look(name, look, move |driver, name, found| match found {
            Err(failure) => replier.finish(Err(failure)),
            Ok(found) => {
                let to = Destination::Process { label, found };
                let call = Call {
                    to,
                    wanted,
                    closer,
                    replier,
                };
                driver.compare(name, call);
            }
        });
    }

    /// Looks at the listeners of old and new instances, beside the driver, and goes on from there.
    /// It comes before the registration of a process: a refusal leaves no trace.
    fn compare(&mut self, name: &ServiceName, call: Call) {
        let (comparison, receiving) = match self.to_look_at(name, &call) {
            Err(failure) => return call.replier.finish(Err(failure)),
            Ok(to_look_at) => to_look_at,
        };
        let compared = comparison.clone();
        let closer = Arc::clone(&call.closer);
        self.find(
            name,
            move |_, netns| {
                if let Some(receiving) = receiving {
                    receiving.check()?;
                }
                Ok(comparison.read(netns, &closer)?)
            },
            move |driver, name, read| driver.compared(name, call, &compared, read),
        );
    }

    fn compared(
        &mut self,
        name: &ServiceName,
        call: Call,
        compared: &Comparison,
        read: Result<Compared, Failure>,
    ) {
        match self.to_look_at(name, &call) {
            // Somebody has come or gone meanwhile.
            Ok((now, _)) if now != *compared => return self.compare(name, call),
            Ok(_) => {}
            Err(failure) => return call.replier.finish(Err(failure)),
        }
        match read.and_then(|read| self.judge(name, &call, &read)) {
            Err(failure) => call.replier.finish(Err(failure)),
            Ok(warnings) => self.go_ahead(name, call, warnings),
        }
    }

    /// What there is to compare, and who has to receive connections, if anybody; a failure where the
    /// migration is refused for other reasons.
    fn to_look_at(
        &self,
        name: &ServiceName,
        call: &Call,
    ) -> Result<(Comparison, Option<Receiving>), Failure> {
        let (state, to) = self.foresee(name, &call.to)?;
        let label = state.label(to);
        let start = domain::migrate(&state, &label, call.wanted.options)?;
        let managed = self.managed(name)?;
        let drain = call.wanted.options.drain;
        let mut groups = managed.maps.groups().iter();
        if drain == Drain::Kernel && groups.any(|it| it.kind() == ProgramKind::Select) {
            return Err(failure::no_kernel_drain());
        }
        let receiving = match (start, drain) {
            (Start::Begin(_), Drain::Handoff) => Some(Receiving {
                handoff: Arc::clone(&managed.handoff),
                process: state.instances[&to].process,
                label,
            }),
            (Start::Begin(_), Drain::Owner | Drain::Kernel) | (Start::Unchanged, _) => None,
        };
        Ok((Comparison::before(&state, to), receiving))
    }

    /// A process can close its listeners and live on, as servers do that end gracefully. Switching
    /// to one would leave the choice to the kernel, which would go on with the old listeners while
    /// they are drained and retired.
    fn judge(
        &self,
        name: &ServiceName,
        call: &Call,
        read: &Compared,
    ) -> Result<Vec<String>, Failure> {
        let (state, to) = self.foresee(name, &call.to)?;
        if let Some(address) = state.deaf_at(to, &read.listening) {
            let label = state.label(to);
            let address = address.clone();
            return Err(Refusal::NoListener { label, address }.into());
        }
        let warnings = domain::compare(&read.groups, &call.wanted.allowed)?;
        Ok(warnings.iter().map(ToString::to_string).collect())
    }

    /// The service as it is when the migration begins, and where it goes.
    fn foresee(
        &self,
        name: &ServiceName,
        to: &Destination,
    ) -> Result<(Service, Generation), Failure> {
        match to {
            Destination::Instance(label) => {
                let state = self.managed(name)?.state.clone();
                let to = state.find(label)?;
                Ok((state, to))
            }
            Destination::Process { label, found } => {
                let (decision, to) = self.decide_registration(name, label.as_ref(), found)?;
                Ok((decision.next, to))
            }
        }
    }

    fn go_ahead(&mut self, name: &ServiceName, call: Call, warnings: Vec<String>) {
        let Call {
            to,
            wanted,
            closer: _,
            replier,
        } = call;
        if wanted.dry_run {
            let foreseen = self.foresee(name, &to);
            return replier.finish(foreseen.and_then(|(state, to)| {
                let to = state.label(to);
                Ok(rehearse(&state, &to, wanted.options, warnings)?.into())
            }));
        }
        let begun = self
            .arrive(name, to)
            .and_then(|to| Ok((self.begin(name, &to, wanted.options)?, to)));
        match begun {
            Err(failure) => replier.finish(Err(failure)),
            Ok((None, to)) => {
                let unchanged = self.managed(name).and_then(|it| {
                    let result = rehearse(&it.state, &to, wanted.options, warnings)?;
                    Ok((it, result))
                });
                match (unchanged, self.session_wait(&wanted)) {
                    (Ok((managed, result)), Some(wait)) => wait.start(managed, result, replier),
                    (unchanged, _) => replier.finish(unchanged.map(|(_, it)| it.into())),
                }
            }
            Ok((Some((decision, before)), _)) => {
                self.switch(name, decision, before, &wanted, warnings, replier);
            }
        }
    }

    /// Registers the process, if it goes to one.
    fn arrive(&mut self, name: &ServiceName, to: Destination) -> Result<Label, Failure> {
        match to {
            Destination::Instance(label) => Ok(label),
            Destination::Process { label, found } => {
                let (generation, _) = self.take_in(name, label.as_ref(), &found)?;
                Ok(self.managed(name)?.state.label(generation))
            }
        }
    }

    /// What there is to do, if anything.
    fn begin(
        &self,
        name: &ServiceName,
        to: &Label,
        options: Options,
    ) -> Result<Option<(Decision, Option<Counters>)>, Failure> {
        let managed = self.managed(name)?;
        let before = self.holders.before(&managed.netns);
        let options = Options {
            migrate_req: before.map_err(|it| failed("migrate-req", &chain(&it), None))?,
            ..options
        };
        match domain::migrate(&managed.state, to, options)? {
            Start::Begin(decision) => Ok(Some((*decision, Counters::read(managed)))),
            Start::Unchanged => Ok(None),
        }
    }

    fn switch(
        &mut self,
        name: &ServiceName,
        decision: Decision,
        before: Option<Counters>,
        wanted: &Wanted,
        warnings: Vec<String>,
        replier: Replier,
    ) {
        tell_phase(&replier, "staged", wanted.started);
        let wait = self.session_wait(wanted);
        self.run_count += 1;
        let id = self.run_count;
        let Some(managed) = self.services.get_mut(name) else {
            return;
        };
        for warning in &warnings {
            warn!(service = %name, "{warning}");
        }
        let label = |generation: &Generation| managed.state.label(*generation).to_string();
        let migration = decision.next.migration.iter();
        let from = migration.flat_map(|it| &it.from).map(label).collect();
        let run = Run::begun(id, wanted.started, before, from, warnings, replier, wait);
        match managed.perform(&decision, &Sockets::new()) {
            Ok(performed) => {
                self.runs.insert(name.clone(), run);
                info!(service = %name, "migration begun");
                self.commit(name, decision, &performed);
            }
            Err(error) => run.fail(failure::not_performed(&error, None)),
        }
    }

    fn session_wait(&self, wanted: &Wanted) -> Option<SessionWait> {
        Some(SessionWait {
            limit: wanted.wait_sessions?,
            started: wanted.started,
            stopped: self.stopped.clone(),
        })
    }
}

/// The result of a call that changes nothing: because the instance serves already, or because only
/// that was asked.
fn rehearse(
    state: &Service,
    to: &Label,
    options: Options,
    warnings: Vec<String>,
) -> Result<MigrationResult, Failure> {
    let outcome = match domain::migrate(state, to, options)? {
        Start::Unchanged => "unchanged",
        Start::Begin(_) => "dry_run",
    };
    let label = |generation| state.label(generation).to_string();
    let from = state.in_state(InstanceState::Serving).map(label);
    Ok(MigrationResult {
        service: state.name().to_string(),
        from: from.filter(|it| it != to.as_str()).collect(),
        to: to.to_string(),
        outcome: outcome.to_owned(),
        warnings,
        ..MigrationResult::default()
    })
}
