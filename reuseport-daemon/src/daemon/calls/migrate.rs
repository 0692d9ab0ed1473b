//! A service moves, and moves back.

use std::{collections::HashSet, sync::Arc, time::Instant};

use tracing::info;

use super::{changed, instances::label, parse};
use crate::{
    api::{
        Answer, Replier, Scope,
        wire::{Failure, Migrate, MigrationReply, MigrationResult, NetCounters, Outcomes, Reply},
    },
    daemon::{
        counters::Counters,
        driver::Driver,
        failure::{self, bad_parameter},
        inspect::{self, Look, Sockets},
        migration_run::{Run, tell_phase},
    },
    domain::{
        self, Decision, Drain, Generation, InstanceState, Label, Options, Refusal, Retire, Service,
        ServiceName, SocketCookie, Start,
    },
    sys::{clock, passed::Closer, signal::Signal},
};

/// How long a migration waits for the old queues unless it is told otherwise.
const DRAIN_TIMEOUT_MS: u64 = 30_000;

/// The longest that it can be told to wait: a day.
const LONGEST_DRAIN_TIMEOUT_MS: u64 = 24 * 3600 * 1000;

/// A `Migrate` call whose parameters make sense.
struct Wanted {
    options: Options,
    dry_run: bool,
    started: Instant,
}

/// Where a `Migrate` call wants to go.
enum Target {
    Label(Label),
    Pid { pid: u32, label: Option<Label> },
}

impl Driver {
    pub(super) fn migrate(
        &mut self,
        scope: Scope,
        parameters: &Migrate,
        closer: Arc<Closer>,
        replier: Replier,
    ) {
        let started = Instant::now();
        let prepared = target(parameters).and_then(|target| {
            let name = self.service(scope, &parameters.service)?.name().clone();
            let wanted = Wanted {
                options: options(parameters)?,
                dry_run: parameters.dry_run,
                started,
            };
            Ok((name, target, wanted))
        });
        match prepared {
            Err(failure) => replier.finish(Err(failure)),
            Ok((name, Target::Label(to), wanted)) => self.beside(
                &name,
                |_, netns| Ok(inspect::that_listen(netns)?),
                move |driver, name, listening| {
                    let checked = listening.and_then(|it| driver.check_listens(name, &to, &it));
                    match checked {
                        Err(failure) => replier.finish(Err(failure)),
                        Ok(()) => driver.migrate_to(name, &to, &wanted, replier),
                    }
                },
            ),
            Ok((name, Target::Pid { pid, label }, wanted)) => {
                // Refused before anything is looked at, since the look may lead to a registration.
                if let Err(refusal) = self
                    .managed(&name)
                    .and_then(|it| Ok(it.state.check_idle()?))
                {
                    return replier.finish(Err(refusal));
                }
                let look = Look::Pid {
                    pid,
                    on_behalf_of: None,
                    closer,
                };
                self.look(&name, look, move |driver, name, found| {
                    let to = found.and_then(|found| {
                        if wanted.dry_run {
                            let (decision, to) =
                                driver.decide_registration(name, label.as_ref(), &found)?;
                            return Ok(Err((decision.next, to)));
                        }
                        let (to, _) = driver.take_in(name, label.as_ref(), &found)?;
                        Ok(Ok(driver.managed(name)?.state.label(to)))
                    });
                    match to {
                        Err(failure) => replier.finish(Err(failure)),
                        Ok(Ok(to)) => driver.migrate_to(name, &to, &wanted, replier),
                        Ok(Err((state, to))) => {
                            let to = state.label(to);
                            replier.finish(rehearse(&state, &to, wanted.options));
                        }
                    }
                });
            }
        }
    }

    /// A process can close its listeners and live on, as servers do that end gracefully. Switching
    /// to one would leave the choice to the kernel, which would go on with the old listeners while
    /// they are drained and retired.
    fn check_listens(
        &self,
        name: &ServiceName,
        to: &Label,
        listening: &HashSet<SocketCookie>,
    ) -> Result<(), Failure> {
        let state = &self.managed(name)?.state;
        let generation = state.find(to)?;
        match state.deaf_at(generation, listening) {
            // What has no slot, or has ended, is the domain's to refuse.
            Some(address) if state.lives(generation) => Err(Refusal::NoListener {
                label: to.clone(),
                address: address.clone(),
            }
            .into()),
            Some(_) | None => Ok(()),
        }
    }

    fn migrate_to(&mut self, name: &ServiceName, to: &Label, wanted: &Wanted, replier: Replier) {
        match self.begin(name, to, wanted) {
            Err(failure) => replier.finish(Err(failure)),
            Ok(None) => {
                let answer = self
                    .managed(name)
                    .and_then(|it| rehearse(&it.state, to, wanted.options));
                replier.finish(answer);
            }
            Ok(Some((decision, before))) => self.switch(name, decision, before, wanted, replier),
        }
    }

    /// What there is to do, if anything.
    fn begin(
        &self,
        name: &ServiceName,
        to: &Label,
        wanted: &Wanted,
    ) -> Result<Option<(Decision, Option<Counters>)>, Failure> {
        let managed = self.managed(name)?;
        match domain::migrate(&managed.state, to, wanted.options)? {
            Start::Begin(decision) if !wanted.dry_run => {
                Ok(Some((*decision, Counters::read(managed))))
            }
            Start::Begin(_) | Start::Unchanged => Ok(None),
        }
    }

    fn switch(
        &mut self,
        name: &ServiceName,
        decision: Decision,
        before: Option<Counters>,
        wanted: &Wanted,
        replier: Replier,
    ) {
        tell_phase(&replier, "staged", wanted.started);
        self.run_count += 1;
        let id = self.run_count;
        let Some(managed) = self.services.get_mut(name) else {
            return;
        };
        let label = |generation: &Generation| managed.state.label(*generation).to_string();
        let migration = decision.next.migration.iter();
        let from = migration.flat_map(|it| &it.from).map(label).collect();
        let run = Run::begun(id, wanted.started, before, from, replier);
        match managed.perform(&decision, &Sockets::new()) {
            Ok(performed) => {
                self.runs.insert(name.clone(), run);
                info!(service = %name, "migration begun");
                self.commit(name, decision, &performed);
            }
            Err(error) => run.fail(failure::not_performed(&error, None)),
        }
    }

    pub(super) fn roll_back(&mut self, name: &str) -> Answer {
        let managed = self.service(Scope::All, name)?;
        let name = managed.name().clone();
        let decision = domain::roll_back(&managed.state)?;
        self.apply(&name, decision)
            .map_err(|error| failure::not_performed(&error, None))?;
        Ok(changed(
            true,
            format!("the migration of {name} is rolled back"),
        ))
    }
}

/// The answer to a call that changes nothing: because the instance serves already, or because only
/// that was asked.
fn rehearse(state: &Service, to: &Label, options: Options) -> Answer {
    let outcome = match domain::migrate(state, to, options)? {
        Start::Unchanged => "unchanged",
        Start::Begin(_) => "dry_run",
    };
    let label = |generation| state.label(generation).to_string();
    let from = state.in_state(InstanceState::Serving).map(label);
    Ok(Reply::Migration(Box::new(MigrationReply {
        progress: None,
        result: Some(MigrationResult {
            service: state.name().to_string(),
            from: from.filter(|it| it != to.as_str()).collect(),
            to: to.to_string(),
            outcome: outcome.to_owned(),
            switch_us: 0,
            drain_ms: 0,
            handshakes_waited: 0,
            accepted_while_draining: 0,
            moved_by_kernel: 0,
            handed_off: 0,
            left_behind: 0,
            counters: NetCounters::default(),
            outcomes: Outcomes::default(),
        }),
    })))
}

fn target(parameters: &Migrate) -> Result<Target, Failure> {
    let named = label(parameters.label.as_deref())?;
    match (&parameters.to, parameters.to_pid, named) {
        (Some(to), None, None) => Ok(Target::Label(parse("to", to)?)),
        (None, Some(pid), label) => Ok(Target::Pid { pid, label }),
        (Some(_) | None, _, _) => Err(Refusal::Target.into()),
    }
}

fn options(parameters: &Migrate) -> Result<Options, Failure> {
    let timeout = parameters.drain_timeout_ms.unwrap_or(DRAIN_TIMEOUT_MS);
    Ok(Options {
        drain: match parameters.drain.as_deref() {
            None | Some("owner") => Drain::Owner,
            Some(other) => return Err(Refusal::Word("drain", other.to_owned()).into()),
        },
        retire: match parameters.retire.as_deref() {
            None | Some("keep") => Retire::Keep,
            Some("shutdown") => Retire::Shutdown,
            Some(other) => match other.strip_prefix("signal:") {
                Some(name) => Retire::Signal(signal(name)?),
                None => return Err(Refusal::Word("retire", other.to_owned()).into()),
            },
        },
        deadline_ms: clock::boottime_ms().saturating_add(timeout.min(LONGEST_DRAIN_TIMEOUT_MS)),
    })
}

fn signal(name: &str) -> Result<u32, Failure> {
    let signal: Signal = name
        .parse()
        .map_err(|error| bad_parameter("retire", &error))?;
    Ok(signal.number())
}
