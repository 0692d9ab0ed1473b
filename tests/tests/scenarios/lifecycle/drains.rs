//! Migrations that do not go straight to their end.

use anyhow::{Context, Result, ensure};
use reuseport_daemon::{
    api::wire::MigrationResult,
    lab::{fixture::Fixture, load::Load, server::Stop, world::World},
};
use reuseport_tests::{
    ctl::{Ctl, last_line},
    held::{Held, Stopped, instance_status, until_queued},
    machine::leaves_asleep,
    stage::{DEADLINE, SERVICE, Stage, any_v4, tag, v4},
};
use rustix::process::Signal;

use super::{begin, check_selected, complete};

/// Clients that wait for the old server, each with one connection in its queue.
const WAITING: u32 = 7;

/// Two instances, of which the first serves and will not accept before it is told to go on.
struct Case {
    stage: Stage,
    ctl: Ctl,
    old: Fixture,
    new: Fixture,
}

impl Case {
    fn prepare() -> Result<Self> {
        let stage = Stage::set(World::loopback()?, &[any_v4()])?;
        let old = stage.instance(&v4("v1"))?;
        let new = stage.instance(&v4("v2"))?;
        let ctl = Ctl::of(stage.home())?;
        Ok(Self {
            stage,
            ctl,
            old,
            new,
        })
    }

    fn waiting_clients(&self) -> Result<Load> {
        let load = begin(&self.stage, WAITING)?;
        until_queued(&self.stage, SERVICE, "v1", WAITING)?;
        Ok(load)
    }

    fn states(&self) -> Result<Vec<(String, String)>> {
        let instances = self.stage.status()?.instances;
        Ok(instances
            .into_iter()
            .map(|it| (it.label, it.state))
            .collect())
    }

    fn ensure_states(&self, expected: &[(&str, &str)]) -> Result<()> {
        let states = self.states()?;
        let found = states
            .iter()
            .map(|(label, state)| (label.as_str(), state.as_str()));
        ensure!(found.eq(expected.iter().copied()), "{states:?}");
        ensure!(self.stage.status()?.migration.is_none());
        Ok(())
    }
}

/// During the drain new connections go to the new instance; after the rollback to the old one, at
/// once; and those in the old one's queue never notice.
pub(crate) fn rollback() -> Result<()> {
    let case = Case::prepare()?;
    let stands = Stopped::stop(&case.old)?;
    let early = case.waiting_clients()?;
    let migration = Held::begin(&case.stage, SERVICE, "--to v2")?;
    let late = begin(&case.stage, 3)?;
    ensure!(
        late.advances_by(100, DEADLINE),
        "clients of the new instance"
    );
    case.ctl.done(&format!("rollback {SERVICE}"))?;
    let mark = late.mark();
    let result = migration.ends("rolled_back", 5)?;
    ensure!(result.left_behind == u64::from(WAITING), "{result:?}");
    case.ensure_states(&[("v1", "serving"), ("v2", "standby")])?;
    until_queued(&case.stage, SERVICE, "v1", WAITING + 3)?;

    stands.go_on()?;
    ensure!(early.advances_by(100, DEADLINE), "the old instance serves");
    ensure!(
        late.advances_by(100, DEADLINE),
        "the old instance serves all"
    );
    let (early, late) = (complete(early)?, complete(late)?);
    ensure!(early.by_label().keys().eq([&tag("v1")]));
    ensure!(late.begun_since(mark).keys().eq([&tag("v1")]));
    let by_new = late.by_label()[&tag("v2")];
    check_selected(&case.stage, early.begun() + late.begun())?;
    ensure!(case.new.exit()?.accepted == by_new);
    ensure!(case.old.exit()?.accepted == early.begun() + late.begun() - by_new);
    Ok(())
}

/// The new instance ends during the drain: the old one serves again without being asked.
pub(crate) fn new_instance_ends() -> Result<()> {
    let case = Case::prepare()?;
    let stands = Stopped::stop(&case.old)?;
    let load = case.waiting_clients()?;
    let migration = Held::begin(&case.stage, SERVICE, "--to v2")?;
    case.new.signal(Signal::KILL)?;
    let result = migration.ends("rolled_back", 5)?;
    ensure!(result.from == ["v1"] && result.to == "v2", "{result:?}");
    case.ensure_states(&[("v1", "serving"), ("v2", "gone")])?;

    stands.go_on()?;
    ensure!(load.advances_by(200, DEADLINE), "the old instance serves");
    let ledger = complete(load)?;
    ensure!(ledger.by_label().keys().eq([&tag("v1")]));
    check_selected(&case.stage, ledger.begun())
}

/// The old instance accepts nothing any more. Its listeners are shut down, and what waits in their
/// queues is moved to the new one.
pub(crate) fn by_kernel() -> Result<()> {
    let case = Case::prepare()?;
    let stands = Stopped::stop(&case.old)?;
    let load = case.waiting_clients()?;
    let line = format!("--json migrate {SERVICE} --to v2 --drain kernel");
    let ran = case.ctl.run(&line)?;
    let result: MigrationResult =
        serde_json::from_value(last_line(&ran.out)?).with_context(|| format!("{ran:?}"))?;
    ensure!(result.outcome == "done" && ran.code == 0, "{result:?}");
    ensure!(result.moved_by_kernel == u64::from(WAITING), "{result:?}");
    ensure!(
        result.left_behind == 0 && result.accepted_while_draining == 0,
        "{result:?}"
    );
    case.ensure_states(&[("v1", "retired"), ("v2", "serving")])?;
    ensure!(load.advances_by(200, DEADLINE), "the new instance serves");
    stands.go_on()?;
    let ledger = complete(load)?;
    ensure!(ledger.by_label().keys().eq([&tag("v2")]));
    let counts = case.old.exit()?;
    ensure!(
        counts.accepted == 0 && counts.listeners_lost == 1,
        "{counts:?}"
    );
    Ok(())
}

/// The new instance closes its listeners during the drain, and lives on: the old one serves again
/// without being asked.
pub(crate) fn new_instance_listens_no_more() -> Result<()> {
    let mut case = Case::prepare()?;
    let stands = Stopped::stop(&case.old)?;
    let load = case.waiting_clients()?;
    let migration = Held::begin(&case.stage, SERVICE, "--to v2 --retire shutdown")?;
    case.new.stop_listening(Stop::Close)?;
    let result = migration.ends("rolled_back", 5)?;
    ensure!(result.warnings.len() == 1, "{result:?}");
    case.ensure_states(&[("v1", "serving"), ("v2", "standby")])?;

    stands.go_on()?;
    ensure!(load.advances_by(200, DEADLINE), "the old instance serves");
    let ledger = complete(load)?;
    ensure!(ledger.by_label().keys().eq([&tag("v1")]));
    check_selected(&case.stage, ledger.begun())
}

/// The time is up: what is left is counted, nothing is closed, and the same migration again waits
/// for the rest.
pub(crate) fn timeout() -> Result<()> {
    let case = Case::prepare()?;
    let migrate = |timeout: &str| -> Result<(i32, MigrationResult)> {
        let line = format!("--json migrate {SERVICE} --to v2 --drain-timeout {timeout}");
        let ran = case.ctl.run(&line)?;
        let result = serde_json::from_value(last_line(&ran.out)?);
        Ok((ran.code, result.with_context(|| format!("{ran:?}"))?))
    };
    let stands = Stopped::stop(&case.old)?;
    let early = case.waiting_clients()?;
    for from in [["v1"], ["v1"]] {
        let (code, result) = migrate("100ms")?;
        ensure!(code == 5 && result.outcome == "timed_out", "{result:?}");
        ensure!(result.left_behind == u64::from(WAITING), "{result:?}");
        ensure!(
            result.accepted_while_draining == 0 && result.from == from,
            "{result:?}"
        );
        case.ensure_states(&[("v1", "draining"), ("v2", "serving")])?;
    }
    let late = begin(&case.stage, 3)?;
    ensure!(late.advances_by(100, DEADLINE), "the new instance serves");

    stands.go_on()?;
    ensure!(
        early.advances_by(100, DEADLINE),
        "the old queue is answered"
    );
    let (code, result) = migrate("30s")?;
    ensure!(code == 0 && result.outcome == "done", "{result:?}");
    ensure!(result.left_behind == 0, "{result:?}");
    case.ensure_states(&[("v1", "retired"), ("v2", "serving")])?;

    let (early, late) = (complete(early)?, complete(late)?);
    ensure!(late.by_label().keys().eq([&tag("v2")]));
    ensure!(early.by_label()[&tag("v1")] == u64::from(WAITING));
    check_selected(&case.stage, early.begun() + late.begun())?;
    let listening = instance_status(&case.stage, SERVICE, "v1")?.context("the old one")?;
    ensure!(listening.listeners.len() == 1);
    ensure!(case.old.exit()?.accepted == u64::from(WAITING));
    Ok(())
}

/// The old instance ends during the drain. Nobody is left to wait for; what was in its queue goes to
/// the new one, which is what the program's second half is for.
pub(crate) fn old_instance_ends() -> Result<()> {
    let case = Case::prepare()?;
    let stands = Stopped::stop(&case.old)?;
    let load = case.waiting_clients()?;
    let migration = Held::begin(&case.stage, SERVICE, "--to v2")?;
    case.old.signal(Signal::KILL)?;
    drop(stands);
    let result = migration.ends("done", 0)?;
    ensure!(result.moved_by_kernel == u64::from(WAITING), "{result:?}");
    case.ensure_states(&[("v2", "serving")])?;
    ensure!(load.advances_by(200, DEADLINE), "the new instance serves");
    let ledger = complete(load)?;
    ensure!(ledger.by_label().keys().eq([&tag("v2")]));
    let outcomes = case.stage.status()?.groups[0].outcomes.clone();
    // Where the kernel leaves the new instance asleep, the daemon's own connections come on top.
    let woken = outcomes.new.selected.checked_sub(ledger.begun());
    let expected = if leaves_asleep()? { 1..=16 } else { 0..=0 };
    ensure!(
        woken.is_some_and(|it| expected.contains(&it)),
        "{outcomes:?}"
    );
    ensure!(
        outcomes.migrating.selected == u64::from(WAITING),
        "{outcomes:?}"
    );
    Ok(())
}
