//! SIGKILL of the daemon, of a server, or of both, before and after every effect of every operation.
//! Whoever is left goes on, a new daemon takes up what the old one left, and afterwards nothing may be
//! missing: no connection, no pin, no slot, and whoever serves is alive and is who answers.

mod check;
mod denied;
mod operation;
mod random;
mod scene;

use std::{
    env,
    io::{self, Write},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

use anyhow::{Context, Result, anyhow, ensure};
use reuseport_tests::{
    kill_points::{Moment, Point},
    machine::{Need, scaled},
};

use self::{
    check::Expected,
    scene::{Scene, Victim},
};
pub(crate) use self::{
    denied::{DENIED, at_every_call as denied_at_every_call},
    operation::Operation,
    random::at_random,
};

/// `all` has every victim killed at every point; otherwise they take turns, so that each point is
/// come to with one of them.
const WHICH: &str = "REUSEPORTD_KILL_POINTS";

/// Where it is set, the effects of each operation are listed.
const LIST: &str = "REUSEPORTD_KILL_POINTS_LIST";

/// Worlds at a time: each mostly waits, for grace periods, exits and pauses. A slow machine has fewer,
/// as many as it can start within the deadlines.
const AT_A_TIME: u32 = 12;
const AT_A_TIME_AT_LEAST: u32 = 3;

/// The fewest cases that a slow machine plays.
const CASES_AT_LEAST: u32 = 12;

/// How often a case is played until its point is come to.
const TRIES: u32 = 3;

/// Kills at the points of one operation.
pub(crate) fn at_every_effect(operation: Operation) -> Result<()> {
    let started = Instant::now();
    let (expected, effects) = reference(operation).context("nobody is killed")?;
    let cases = some_of(cases(operation, effects.len())?)?;
    let at_a_time = scaled(AT_A_TIME)?.max(AT_A_TIME_AT_LEAST);
    let failures = Mutex::new(Vec::new());
    let (next, reached) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..at_a_time {
            scope.spawn(|| {
                while let Some((point, victim)) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match play(operation, *point, *victim, &expected) {
                        Ok(struck) => {
                            reached.fetch_add(usize::from(struck), Ordering::Relaxed);
                        }
                        Err(error) => {
                            let effect = &effects[point.effect];
                            let at = format!("{:?} {} ({effect})", point.moment, point.effect);
                            let failure = error.context(format!("{victim:?} killed {at}"));
                            if let Ok(mut failures) = failures.lock() {
                                failures.push(failure);
                            }
                        }
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().map_err(|_| anyhow!("a panic"))?;
    let _ = writeln!(
        io::stderr(),
        "{}: {} effects, {} kills, {} of them in time, {} failures, {:.1} s",
        operation.name(),
        effects.len(),
        cases.len(),
        reached.load(Ordering::Relaxed),
        failures.len(),
        started.elapsed().as_secs_f32(),
    );
    if env::var_os(LIST).is_some() {
        let _ = writeln!(io::stderr(), "  {}", effects.join(", "));
    }
    let all: Vec<_> = failures.iter().map(|it| format!("{it:#}")).collect();
    ensure!(failures.is_empty(), "{}", all.join("\n"));
    let reached = reached.load(Ordering::Relaxed);
    ensure!(
        reached * 20 >= cases.len() * 19,
        "{reached} of {} points reached",
        cases.len()
    );
    Ok(())
}

/// Lets the operation go through, to learn its effects and what comes of it.
fn reference(operation: Operation) -> Result<(Expected, Vec<String>)> {
    let mut scene = Scene::set(operation)?;
    let before = scene.signature()?;
    let (seen, answer) = scene.perform(None)?;
    answer.context("the operation")?;
    ensure!(!seen.effects.is_empty(), "an operation without effects");
    scene.settle()?;
    let expected = Expected::of(operation, before, &scene)?;
    scene.check(&expected, None)?;
    Ok((expected, seen.effects))
}

/// Kills at one point; tells whether it was come to. The effects of what an operation leads to may come
/// in another order, or before it is looked at, so that it is tried again where it was not.
fn play(operation: Operation, point: Point, victim: Victim, expected: &Expected) -> Result<bool> {
    for _ in 0..TRIES {
        if play_once(operation, point, victim, expected)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn play_once(
    operation: Operation,
    point: Point,
    victim: Victim,
    expected: &Expected,
) -> Result<bool> {
    let mut scene = Scene::set(operation).context("prepare")?;
    let (seen, answer) = scene.perform(Some((point, victim))).context("perform")?;
    if !seen.struck {
        answer.context("nobody was killed, and yet")?;
    }
    scene.settle().context("settle")?;
    scene.check(expected, seen.struck.then_some(victim))?;
    Ok(seen.struck)
}

fn cases(operation: Operation, effects: usize) -> Result<Vec<(Point, Victim)>> {
    let mut victims = operation.victims().to_vec();
    // What a server that is killed has not accepted is reset where the kernel moves nothing, and nobody
    // can tell how much that is; or it waits behind a server that sleeps and that nobody has registered.
    for need in [Need::Migration, Need::Wakeful] {
        if let Some(why) = need.unmet()? {
            victims.retain(|it| !it.has_server());
            let _ = writeln!(io::stderr(), "no server is killed: {why}");
        }
    }
    ensure!(victims.len() % 2 == 1, "{victims:?}: even, or none");
    let all = env::var(WHICH).is_ok_and(|it| it == "all");
    let points = (0..effects).flat_map(|effect| {
        let moments = [Moment::Before, Moment::After];
        moments.map(|moment| Point { effect, moment })
    });
    let mut cases = Vec::new();
    for (index, point) in points.enumerate() {
        // The moments alternate and the number of victims is odd, so that each victim has both.
        let turn = index % victims.len();
        let chosen = victims
            .iter()
            .enumerate()
            .filter(|(it, _)| all || *it == turn);
        cases.extend(chosen.map(|(_, victim)| (point, *victim)));
    }
    Ok(cases)
}

/// As many as this machine is asked for, from the first effect to the last.
fn some_of<T>(all: Vec<T>) -> Result<Vec<T>> {
    let wanted = scaled(u32::try_from(all.len())?)?;
    let wanted = usize::try_from(wanted.max(CASES_AT_LEAST))?;
    let mut step = all.len().div_ceil(wanted).max(1);
    // It shares no factor with the two moments, nor with the three or five victims that take turns.
    while step > 1 && [2, 3, 5].iter().any(|it| step % it == 0) {
        step += 1;
    }
    Ok(all.into_iter().step_by(step).collect())
}
