//! `migrate --wait-sessions`: the migration is done, and its caller stays until the old sessions are
//! gone.

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use reuseport_daemon::{
    api::wire::MigrationResult,
    lab::{
        fixture::Fixture,
        load::{Load, LoadOptions},
        process::Process,
        world::World,
    },
};
use reuseport_tests::{
    ctl::{Ctl, Ran},
    held::{instance_status, service_status, until_state},
    stage::{DEADLINE, PORT, SERVICE, Stage, any_v4, v4},
    wait::until,
};
use rustix::process::Signal;
use serde_json::Value;

/// Two servers, the first of which serves.
fn two_servers() -> Result<(Stage, Fixture, Fixture)> {
    let stage = Stage::set(World::loopback()?, &[any_v4()])?;
    let old = stage.instance(&v4("v1"))?;
    let new = stage.instance(&v4("v2"))?;
    Ok((stage, old, new))
}

/// Sessions with whoever serves, all of which have spoken.
fn hold(stage: &Stage, sessions: u32) -> Result<Load> {
    let options = LoadOptions {
        sessions,
        ..LoadOptions::churn(vec![stage.world.v4(PORT)], 0)
    };
    let load = Load::start(stage.world.client(), options)?;
    ensure!(load.advances_by(u64::from(sessions), DEADLINE), "sessions");
    Ok(load)
}

fn churn(stage: &Stage) -> Result<Load> {
    let options = LoadOptions::churn(vec![stage.world.v4(PORT)], 4);
    let load = Load::start(stage.world.client(), options)?;
    ensure!(load.advances_by(100, DEADLINE), "a load under way");
    Ok(load)
}

/// Closes the sessions; every request of theirs was answered by the one who accepted them.
fn close(sessions: Load) -> Result<()> {
    Ok(sessions.stop()?.sessions.check_complete()?)
}

/// `reuseportctl migrate` that waits for sessions.
struct Waiting(Process);

impl Waiting {
    fn start(stage: &Stage, arguments: &str) -> Result<Self> {
        let arguments = format!("migrate {SERVICE} {arguments}");
        Ok(Self(Ctl::of(stage.home())?.start(stage, &arguments)?))
    }

    /// The next number of sessions that it tells; none at its end, which must be that one.
    fn next(&mut self, outcome: &str) -> Result<Option<u64>> {
        loop {
            let line = self.0.next_line("tell more", DEADLINE)?;
            let line: Value = serde_json::from_str(&line)?;
            let progress = &line["progress"];
            if progress["phase"] == "sessions" {
                return Ok(Some(progress["sessions"].as_u64().context("a number")?));
            }
            if progress.is_null() {
                ensure!(line["outcome"] == outcome, "{line}");
                ensure!(line["sessions_left"] == 0, "{line}");
                return Ok(None);
            }
        }
    }

    /// Waits until it tells that many.
    fn until(&mut self, sessions: u64) -> Result<()> {
        while self.next("done")?.context("a wait that goes on")? != sessions {}
        Ok(())
    }

    /// Waits for its end, with no session left.
    fn ends(mut self, outcome: &str) -> Result<()> {
        while self.next(outcome)?.is_some() {}
        let status = self.0.finish(DEADLINE)?.status;
        ensure!(status.success(), "{status}");
        Ok(())
    }
}

/// Two hundred sessions end in four parts, each when the number before was told: the numbers fall,
/// and the last one is 0. Everybody else's connections go to the new server meanwhile.
pub(crate) fn end_one_by_one() -> Result<()> {
    const PARTS: u64 = 4;
    const PART: u64 = 50;
    let (stage, _old, _new) = two_servers()?;
    let mut parts = (0..PARTS)
        .map(|_| hold(&stage, u32::try_from(PART)?))
        .collect::<Result<Vec<Load>>>()?;
    let churn = churn(&stage)?;

    let mut waiting = Waiting::start(&stage, "--to v2 --wait-sessions 30s")?;
    let mut told = Vec::new();
    while let Some(left) = waiting.next("done")? {
        told.push(left);
        if left <= PART * parts.len() as u64
            && let Some(part) = parts.pop()
        {
            close(part)?;
        }
    }
    waiting.0.finish(DEADLINE)?;

    ensure!(told.first() >= Some(&(PART * PARTS)), "{told:?}");
    ensure!(told.last() == Some(&0), "{told:?}");
    ensure!(
        told.is_sorted_by(|before, after| before > after),
        "{told:?}"
    );
    ensure!(churn.advances_by(100, DEADLINE), "a load that goes on");
    churn.stop()?.connections.check_complete()?;
    let again = format!("migrate {SERVICE} --to v2 --wait-sessions 30s");
    let ran = Ctl::of(stage.home())?.done(&again)?;
    ensure!(ran.contains("no session is left"), "{ran}");
    Ok(())
}

/// The deadline ends the wait with exit status 5 and the number that is left, as `status` shows it;
/// so does a second call, which has nothing to migrate; and one that waits no time at all.
pub(crate) fn outlive_the_deadline() -> Result<()> {
    const SESSIONS: u64 = 7;
    let (stage, _old, _new) = two_servers()?;
    let sessions = hold(&stage, u32::try_from(SESSIONS)?)?;
    let ctl = Ctl::of(stage.home())?;
    for (wait, switched) in [("300ms", true), ("300ms", false), ("0s", false)] {
        let ran = ctl.run(&format!(
            "--json migrate {SERVICE} --to v2 --wait-sessions {wait}"
        ))?;
        let result = left_over(&ran, SESSIONS)?;
        ensure!((result.switch_us > 0) == switched, "{result:?}");
        let old = instance_status(&stage, SERVICE, "v1")?.context("v1")?;
        ensure!(old.sessions == SESSIONS, "{old:?}");
    }
    let dry = ctl.run(&format!(
        "--json migrate {SERVICE} --to v2 --wait-sessions 30s --dry-run"
    ))?;
    let result = dry.result()?;
    ensure!(
        dry.code == 0 && result["outcome"] == "unchanged" && result["sessions_left"].is_null(),
        "{dry:?}"
    );
    close(sessions)
}

fn left_over(ran: &Ran, sessions: u64) -> Result<MigrationResult> {
    let result: MigrationResult = serde_json::from_value(ran.result()?)?;
    ensure!(
        ran.code == 5 && result.outcome == "sessions_left",
        "{ran:?}"
    );
    ensure!(result.sessions_left == Some(sessions), "{ran:?}");
    Ok(result)
}

/// Sessions end with the process that has them, whether it is killed or told to end.
pub(crate) fn end_with_their_server() -> Result<()> {
    let (stage, old, _new) = two_servers()?;
    let churn = churn(&stage)?;
    let sessions = hold(&stage, 20)?;
    let mut waiting = Waiting::start(&stage, "--to v2 --wait-sessions 10m")?;
    waiting.until(20)?;
    old.signal(Signal::KILL)?;
    waiting.ends("done")?;
    // They were lost with their server, as they must be.
    drop(sessions);
    drop(old);

    let _last = stage.instance(&v4("v3"))?;
    let told_to_end = Waiting::start(&stage, "--to v3 --retire signal:TERM --wait-sessions 10m")?;
    told_to_end.ends("done")?;
    churn.stop()?.connections.check_complete()?;
    Ok(())
}

/// Sessions are between a client and its server, whatever becomes of the daemon.
pub(crate) fn outlive_the_daemon() -> Result<()> {
    let (mut stage, _old, _new) = two_servers()?;
    let sessions = hold(&stage, 20)?;
    for end in [Stage::replace_killed_daemon, Stage::restart_daemon] {
        end(&mut stage)?;
        ensure!(sessions.advances_by(100, DEADLINE), "sessions that go on");
    }
    stage.stop_daemon()?;
    ensure!(sessions.advances_by(100, DEADLINE), "sessions that go on");
    close(sessions)
}

/// A caller who is killed leaves nothing behind in the daemon: neither the watch on the old process
/// nor that on the caller, both of which are descriptors.
pub(crate) fn the_caller_is_killed() -> Result<()> {
    let (stage, _old, _new) = two_servers()?;
    let sessions = hold(&stage, 20)?;
    let descriptors = || -> Result<usize> {
        let pid = stage.daemon().pid();
        Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count())
    };
    let before = descriptors()?;
    let mut waiting = Waiting::start(&stage, "--to v2 --wait-sessions 10m")?;
    waiting.until(20)?;
    ensure!(descriptors()? > before, "a wait that holds nothing");
    let mut beside = Waiting::start(&stage, "--to v2 --wait-sessions 10m")?;
    beside.until(20)?;
    for Waiting(process) in [waiting, beside] {
        process.signal(Signal::KILL)?;
        let status = process.finish(DEADLINE)?.status;
        ensure!(!status.success(), "{status}");
    }
    until("the descriptors from before", || {
        Ok(descriptors()? == before)
    })?;
    close(sessions)
}

/// For the service the migration is over: it can migrate again, and there is nothing to roll back.
/// Several can wait at once; a daemon that stops tells each of them what is left.
pub(crate) fn another_migration_meanwhile() -> Result<()> {
    let (mut stage, old, _new) = two_servers()?;
    let _last = stage.instance(&v4("v3"))?;
    let churn = churn(&stage)?;
    let sessions = hold(&stage, 20)?;
    let ctl = Ctl::of(stage.home())?;
    let mut first = Waiting::start(&stage, "--to v2 --wait-sessions 10m")?;
    first.until(20)?;
    ensure!(service_status(&stage, SERVICE)?.migration.is_none());
    until_state(&stage, SERVICE, "v1", "retired")?;
    let back = ctl.run(&format!("--json rollback {SERVICE}"))?;
    ensure!(back.code == 3, "{back:?}");

    ctl.done(&format!("migrate {SERVICE} --to v3"))?;
    let mut second = Waiting::start(&stage, "--to v3 --wait-sessions 10m")?;
    second.until(20)?;
    close(sessions)?;
    first.ends("done")?;
    second.ends("unchanged")?;

    let more = hold(&stage, 3)?;
    let mut third = Waiting::start(&stage, "--to v2 --wait-sessions 10m")?;
    third.until(3)?;
    stage.restart_daemon()?;
    let ended = third.0.finish(Duration::from_secs(5))?;
    let ran = Ran {
        code: ended.status.code().context("it was killed")?,
        out: ended.output,
        err: String::new(),
    };
    left_over(&ran, 3)?;
    close(more)?;
    churn.stop()?.connections.check_complete()?;
    old.exit()?;
    Ok(())
}
