//! Whether the books of a cell say what they must: the clients', the servers', the daemon's and the
//! kernel's, and all of them the same.

use anyhow::{Result, ensure};
use reuseport_daemon::{
    api::wire::{Failure, MigrationResult, OutcomeCounts, Outcomes, ServiceStatus},
    lab::{ledger::Ledger, server::Counts},
};
use reuseport_tests::{
    cells::{Cell, Drain, Path, Retire, State},
    held::instance_status,
    stage::{SERVICE, tag},
    wait::until,
};

use super::{
    CLIENTS,
    plan::{By, Expected},
    play::Answer,
    scene::Scene,
};

/// What came of a cell.
#[derive(Debug)]
pub(crate) struct Played {
    pub(crate) cell: Cell,
    pub(crate) result: MigrationResult,
    pub(crate) ledger: Ledger,
}

/// Checks everything, and ends the scene.
pub(crate) fn check(scene: Scene, played: &Played) -> Result<()> {
    let Played {
        cell,
        result,
        ledger,
    } = played;
    ledger.check_complete()?;
    ensure!(ledger.begun() == u64::from(CLIENTS), "{ledger:?}");
    let expected = Expected::of(*cell);
    check_result(*cell, &expected, result)?;
    let (old, new) = (answered(ledger, "v1"), answered(ledger, "v2"));
    check_who(&expected, result, old, new)?;
    check_instances(&scene, *cell, expected.in_time)?;
    check_outcomes(&scene, played, new)?;
    let lost_listeners = lost_listeners(&scene, *cell, expected.in_time);
    let Scene {
        mut stage,
        old: old_server,
        new: new_server,
        ..
    } = scene;
    stage.stop_daemon()?;
    check_counts(old_server.exit()?, old, lost_listeners)?;
    check_counts(new_server.exit()?, new, 0)
}

/// What this kernel cannot do is refused for that reason, and the old server goes on.
pub(crate) fn check_refusal(answer: &Answer, ledger: &Ledger) -> Result<()> {
    let refused = match answer {
        Err(Failure::Unsupported(reason)) => reason.reason == "kernel-drain",
        Err(Failure::Refused(_) | Failure::NotPermitted(_) | Failure::Failed(_)) | Ok(_) => false,
    };
    ensure!(refused, "not refused: {answer:?}");
    ledger.check_complete()?;
    let old = answered(ledger, "v1");
    ensure!(old == u64::from(CLIENTS), "{old} answered by the old one");
    Ok(())
}

fn answered(ledger: &Ledger, label: &str) -> u64 {
    ledger.by_label().get(&tag(label)).copied().unwrap_or(0)
}

fn check_result(cell: Cell, expected: &Expected, result: &MigrationResult) -> Result<()> {
    let outcome = if expected.in_time {
        "done"
    } else {
        "timed_out"
    };
    let waited = expected.handshakes.unwrap_or(result.handshakes_waited);
    let (drained, others) = drained(cell.drain, result);
    ensure!(
        result.outcome == outcome
            && result.from == ["v1"]
            && result.to == "v2"
            && result.handshakes_waited == waited
            && drained == expected.drained.unwrap_or(drained)
            && others == 0
            && result.left_behind == expected.left_behind
            && result.warnings.is_empty(),
        "{result:?} instead of {expected:?}"
    );
    Ok(())
}

/// How many connections the drain has taken from the old queues in its own way, and how many in
/// those of others.
fn drained(drain: Drain, result: &MigrationResult) -> (u64, u64) {
    let (moved, handed) = (result.moved_by_kernel, result.handed_off);
    match drain {
        Drain::Owner => (result.accepted_while_draining, moved + handed),
        Drain::Kernel => (moved, handed),
        Drain::Handoff => (handed, moved),
    }
}

fn check_who(expected: &Expected, result: &MigrationResult, old: u64, new: u64) -> Result<()> {
    let all = u64::from(CLIENTS);
    let right = match expected.by {
        By::Old => old == all,
        By::New => new == all,
        By::NewLaterHalf => new >= all / 2,
        // A snapshot cannot tell whose a handshake is: one that came to the new server just before
        // it was taken is waited for as well. And one that ends while it is taken is counted where it
        // was and where it is.
        By::AsCounted => {
            let counted = result.accepted_while_draining;
            let more = result.outcomes.new.selected + result.handshakes_waited;
            (old..=old + more).contains(&counted)
        }
    };
    ensure!(
        right && old + new == all,
        "{old} answered by the old server, {new} by the new one: {result:?}"
    );
    Ok(())
}

/// The new instance serves, and of the old one there is what its retirement leaves.
fn check_instances(scene: &Scene, cell: Cell, in_time: bool) -> Result<()> {
    let stage = &scene.stage;
    let new = instance_status(stage, SERVICE, "v2")?;
    ensure!(
        new.as_ref()
            .is_some_and(|it| it.state == "serving"
                && it.listeners.iter().all(|it| it.accept_queue == Some(0))),
        "{new:?}"
    );
    let listens = lost_listeners(scene, cell, in_time) == 0;
    until("the old instance is what it should be", || {
        let old = instance_status(stage, SERVICE, "v1")?;
        let is = |state| {
            old.as_ref()
                .is_some_and(|it| it.state == state && it.listeners.is_empty() != listens)
        };
        Ok(match cell.retire {
            _ if !in_time => is("draining"),
            Retire::Keep | Retire::Shutdown => is("retired"),
            Retire::Signal => old.is_none(),
        })
    })
}

/// The program has steered every connection once, by its table and by nothing else.
fn check_outcomes(scene: &Scene, played: &Played, by_new: u64) -> Result<()> {
    let status = scene.stage.status()?;
    let [group] = &status.groups[..] else {
        anyhow::bail!("not one group: {:?}", status.groups);
    };
    let outcomes = &group.outcomes;
    let counted = Outcomes {
        new: only_selected(&outcomes.new),
        migrating: only_selected(&outcomes.migrating),
        stray: only_selected(&outcomes.stray),
    };
    ensure!(*outcomes == counted, "not by the table: {outcomes:?}");
    let steered_again = steered_again(played.cell);
    let moved = scene.counters()?.migrated.unwrap_or(0);
    // A half-open one is moved when its timer fires or its ACK arrives. Where both come at once a
    // listener is chosen for each, and it is moved once (`reqsk_timer_handler`,
    // <https://elixir.bootlin.com/linux/v6.18/source/net/ipv4/inet_connection_sock.c>).
    let chosen = outcomes.migrating.selected;
    ensure!(
        chosen == moved || steered_again && chosen > moved,
        "{moved}: {outcomes:?}"
    );
    let (steered, all) = (outcomes.new.selected, u64::from(CLIENTS));
    ensure!(
        steered == all || steered_again && steered > all,
        "{steered} steered: {outcomes:?}"
    );
    // Whom a SYN is steered to says nothing of its cookie.
    if !steered_again && played.cell.state != State::SynCookie {
        let (to_new, handed) = (selected(&status, "v2"), played.result.handed_off);
        ensure!(
            to_new + moved + handed == by_new,
            "{to_new} steered, {moved} moved and {handed} handed to the new server, which answered \
             {by_new}"
        );
    }
    Ok(())
}

fn only_selected(counts: &OutcomeCounts) -> OutcomeCounts {
    OutcomeCounts {
        selected: counts.selected,
        ..OutcomeCounts::default()
    }
}

/// Whether a SYN may meet the program more than once. One that is sent again does not where the first
/// has left a handshake behind; it does where there was no room for one, or none is kept.
fn steered_again(cell: Cell) -> bool {
    match cell.state {
        State::AcceptQueueFull | State::SynQueueFull => true,
        State::SynCookie => cell.path == Path::Lossy,
        State::SynInFlight
        | State::AckDelayed
        | State::AckDropped
        | State::SynAckTimer
        | State::AcceptQueue
        | State::Accepted
        | State::FastOpen
        | State::DeferAccept => false,
    }
}

/// How many new connections were steered to an instance's listeners.
fn selected(status: &ServiceStatus, label: &str) -> u64 {
    let instances = status.instances.iter().filter(|it| it.label == label);
    let listeners = instances.flat_map(|it| &it.listeners);
    listeners.map(|it| it.selected).sum()
}

/// How many of the old server's listeners somebody else has closed.
fn lost_listeners(scene: &Scene, cell: Cell, in_time: bool) -> u64 {
    let closed = cell.drain == Drain::Kernel || cell.retire == Retire::Shutdown;
    if closed && in_time {
        u64::from(scene.crew.old)
    } else {
        0
    }
}

/// A server has answered everything that it has accepted, once.
fn check_counts(counts: Counts, answered: u64, listeners_lost: u64) -> Result<()> {
    let expected = Counts {
        accepted: answered,
        answered,
        listeners_lost,
        ..Counts::default()
    };
    ensure!(counts == expected, "{counts:?} instead of {expected:?}");
    Ok(())
}
