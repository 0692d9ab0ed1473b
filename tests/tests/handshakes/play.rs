//! Playing a cell: into the state, migrate, let go, and look at the books.

use std::{sync::mpsc, thread};

use anyhow::{Context, Result, anyhow, ensure};
use reuseport_daemon::{
    api::{
        client::ClientError,
        wire::{Changed, Failure, Migrate, MigrationResult, Progress, ServiceRef},
    },
    lab::{
        daemon::DaemonError,
        ledger::{Ledger, LossKind},
        load::Load,
    },
};
use reuseport_tests::{
    cells::{Cell, Factor},
    held::Stopped,
    stage::SERVICE,
    wait::{until, until_within},
};
use rustix::process::Signal;

use super::{
    CLIENTS,
    books::Books,
    plan::{Moment, Plan, Release, Stands},
    scene::{Crew, STEP_TIMEOUT, Scene},
    verdict::{self, Played},
};

/// Plays a cell. What it finds wrong is the error; what became of the connections is in the books
/// either way.
pub(crate) fn play(cell: Cell, crew: Crew, books: &Books) -> Result<()> {
    let plan = Plan::of(cell);
    let scene = Scene::set(cell, crew, &plan)?;
    let mut stands = stop(&scene, &plan, Stands::AtFirst)?;
    let load = scene.reach(&plan)?;
    stands = stands.or(stop(&scene, &plan, Stands::OnceReached)?);
    let mut releases = plan.releases.clone();
    let answer = migrate(&scene, &parameters(cell, &plan), |moment| {
        // Out of the list, so that what is left there was never let go.
        for (_, what) in releases.extract_if(.., |(when, _)| *when == moment) {
            release(&scene, &mut stands, what)?;
        }
        Ok(())
    })?;
    if !scene.can_drain()? {
        for (_, what) in releases {
            release(&scene, &mut stands, what)?;
        }
        drop(stands);
        let ledger = settle(load)?;
        books.refuse(cell, &ledger);
        return verdict::check_refusal(&answer, &ledger);
    }
    let result = answer.map_err(|failure| anyhow!("{failure:?}"))?;
    ensure!(releases.is_empty(), "{releases:?} not reached: {result:?}");
    // It has gone on, if it stood.
    drop(stands);
    let ledger = settle(load)?;
    books.enter(cell, &ledger, &result);
    let played = Played {
        cell,
        result,
        ledger,
    };
    verdict::check(scene, &played)
}

/// Plays a cell without its migration: nobody looks after the service, and the old server is killed.
/// That loses every connection, or the cell would say nothing.
pub(crate) fn play_without(cell: Cell) -> Result<()> {
    let plan = Plan::of(cell);
    let scene = Scene::set(cell, Crew::of(cell), &plan)?;
    let mut stands = stop(&scene, &plan, Stands::AtFirst)?;
    let load = scene.reach(&plan)?;
    stands = stands.or(stop(&scene, &plan, Stands::OnceReached)?);
    let service = ServiceRef {
        service: SERVICE.to_owned(),
    };
    let _: Changed = scene.stage.daemon().call("RemoveService", &service)?;
    scene.old.signal(Signal::KILL)?;
    until("the old listeners are closed", || {
        Ok(scene.listeners()? == usize::from(scene.crew.new))
    })?;
    for (_, what) in plan.releases {
        release(&scene, &mut stands, what)?;
    }
    drop(stands);
    let ledger = settle(load)?;
    ensure!(
        ledger.lost_by(LossKind::Reset) == u64::from(CLIENTS),
        "not all reset: {ledger:?}"
    );
    Ok(())
}

fn stop<'a>(scene: &'a Scene, plan: &Plan, now: Stands) -> Result<Option<Stopped<'a>>> {
    let old = (plan.old_stands == now).then_some(&scene.old);
    old.map(Stopped::stop).transpose()
}

fn release(scene: &Scene, stands: &mut Option<Stopped<'_>>, what: Release) -> Result<()> {
    match what {
        Release::Rule(rule) => scene.sieve.set(scene.link()?, rule),
        Release::Gate => scene.gate.open(),
        Release::OldServer => stands.take().map_or(Ok(()), Stopped::go_on)?,
    }
    Ok(())
}

/// What a migration was answered with.
pub(crate) type Answer = Result<MigrationResult, Failure>;

/// Migrates, and calls `at` at every moment that is reached.
fn migrate(
    scene: &Scene,
    parameters: &Migrate,
    mut at: impl FnMut(Moment) -> Result<()>,
) -> Result<Answer> {
    let daemon = scene.stage.daemon();
    thread::scope(|scope| {
        let (told, heard) = mpsc::channel();
        let migration = scope.spawn(move || {
            daemon.migrate(parameters, |progress| {
                // Nobody hears it where something went wrong already.
                let _ = told.send(progress.clone());
            })
        });
        at(Moment::Asked)?;
        let mut reached = Vec::new();
        for progress in heard {
            let moment = moment(&progress).filter(|it| !reached.contains(it));
            if let Some(moment) = moment {
                reached.push(moment);
                at(moment)?;
            }
        }
        let answer = match migration.join().ok().context("the call panicked")? {
            Ok(result) => Ok(result),
            Err(DaemonError::Client(ClientError::Failure(failure))) => Err(failure),
            Err(error) => return Err(error).with_context(|| daemon.log()),
        };
        at(Moment::Ended)?;
        Ok(answer)
    })
}

fn moment(progress: &Progress) -> Option<Moment> {
    match progress.phase.as_str() {
        "switched" => Some(Moment::Switched),
        // Without numbers the snapshot has not been taken yet.
        "draining" => progress.handshakes.map(|_| Moment::Draining),
        _ => None,
    }
}

/// Waits until every client knows what became of its connection.
fn settle(load: Load) -> Result<Ledger> {
    // Each has at most four steps, and knows after that.
    until_within(4 * STEP_TIMEOUT, "every client has its answer", || {
        let progress = load.progress();
        Ok(progress.answered + progress.lost == u64::from(CLIENTS))
    })?;
    Ok(load.stop()?.connections)
}

fn parameters(cell: Cell, plan: &Plan) -> Migrate {
    Migrate {
        service: SERVICE.to_owned(),
        to: Some("v2".to_owned()),
        drain: Some(cell.drain.name().to_owned()),
        retire: Some(cell.retire.name().to_owned()),
        drain_timeout_ms: u64::try_from(plan.drain_timeout.as_millis()).ok(),
        allow_mismatch: Some(vec!["backlog".to_owned()]),
        ..Migrate::default()
    }
}
