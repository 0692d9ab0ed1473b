//! A migration while it goes on, and when it has ended.

use super::style::{GOOD, WARNING, count, paint};
use crate::api::wire::{MigrationResult, Progress};

/// One phase, without a newline.
pub(in crate::cli) fn progress(progress: &Progress) -> String {
    let mut waits = Vec::new();
    if let Some(handshakes) = progress.handshakes {
        waits.push(count(handshakes, "handshake"));
    }
    if let Some(queued) = progress.queued {
        waits.push(format!("{queued} queued"));
    }
    if let Some(sessions) = progress.sessions {
        waits.push(count(sessions, "session"));
    }
    let waits = if waits.is_empty() {
        String::new()
    } else {
        format!(", {} left", waits.join(" and "))
    };
    format!("{} after {} ms{waits}", progress.phase, progress.elapsed_ms)
}

pub(in crate::cli) fn migration(result: &MigrationResult) -> String {
    let mut lines = vec![headline(result)];
    // Nothing was switched: there is nothing to count.
    let idle = match result.outcome.as_str() {
        "unchanged" | "dry_run" => true,
        "sessions_left" => result.from.is_empty(),
        _ => false,
    };
    if !idle {
        lines.push(format!(
            "  switched in {} µs, drained in {} ms",
            result.switch_us, result.drain_ms
        ));
        lines.push(format!(
            "  {} waited for, {} accepted by the old instance meanwhile",
            count(result.handshakes_waited, "handshake"),
            count(result.accepted_while_draining, "connection"),
        ));
        lines.extend(exceptions(result));
    }
    if result.sessions_left == Some(0) {
        lines.push("  no session is left on the old instances".to_owned());
    }
    let warnings = result.warnings.iter();
    lines.extend(warnings.map(|it| format!("  {} {it}", paint(WARNING, "warning:"))));
    lines.push(String::new());
    lines.join("\n")
}

fn headline(result: &MigrationResult) -> String {
    let MigrationResult {
        service, from, to, ..
    } = result;
    let from = match from.as_slice() {
        [] => String::new(),
        labels => format!(" from {}", labels.join(" and ")),
    };
    match result.outcome.as_str() {
        "done" => format!("{service} moved{from} to {to}: {}", paint(GOOD, "done")),
        "unchanged" => format!("{service} is served by {to} already"),
        "dry_run" => format!("{service} could move{from} to {to}; nothing was changed"),
        "rolled_back" => format!(
            "{service} did not move: {}, {to} serves",
            paint(WARNING, "rolled back")
        ),
        "sessions_left" => format!(
            "{service} is served by {to}: {}",
            paint(WARNING, sessions_left(result))
        ),
        "timed_out" => format!(
            "{service} moved{from} to {to}: {}",
            paint(WARNING, "not drained in time")
        ),
        other => format!("{service}{from} to {to}: {other}"),
    }
}

fn sessions_left(result: &MigrationResult) -> String {
    let left = result.sessions_left.unwrap_or_default();
    format!("{} left on the old instances", count(left, "session"))
}

/// What is zero when all goes well.
fn exceptions(result: &MigrationResult) -> Vec<String> {
    let counters = &result.counters;
    let failures = counters.migrate_req_failure.unwrap_or(0);
    let migrating = &result.outcomes.migrating;
    let new = &result.outcomes.new;
    [
        (result.moved_by_kernel, "moved by the kernel"),
        (result.handed_off, "handed to the new instance"),
        (result.woken, "made by reuseportd to wake the new instance"),
        (result.left_behind, "left behind at the deadline"),
        (failures, "lost by the kernel (TCPMigrateReqFailure)"),
        (counters.listen_overflows, "listen queue overflows"),
        (counters.listen_drops, "listen drops"),
        (
            new.parked + migrating.parked,
            "sent to the parking listener",
        ),
        (new.kernel + migrating.kernel, "left to the kernel's hash"),
    ]
    .into_iter()
    .filter(|(number, _)| *number > 0)
    .map(|(number, what)| format!("  {number} {what}"))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::{super::style::plain, *};

    fn result(outcome: &str) -> MigrationResult {
        MigrationResult {
            service: "game".to_owned(),
            from: vec!["v1".to_owned()],
            to: "v2".to_owned(),
            outcome: outcome.to_owned(),
            switch_us: 412,
            drain_ms: 24,
            handshakes_waited: 3,
            accepted_while_draining: 1,
            ..MigrationResult::default()
        }
    }

    #[test]
    fn an_end_as_it_should_be_is_three_lines() {
        assert_eq!(
            plain(&migration(&result("done"))),
            "game moved from v1 to v2: done\n  \
               switched in 412 µs, drained in 24 ms\n  \
               3 handshakes waited for, 1 connection accepted by the old instance meanwhile\n"
        );
    }

    #[test]
    fn what_went_wrong_is_counted() {
        let mut result = result("timed_out");
        result.left_behind = 2;
        result.counters.listen_overflows = 5;
        assert_eq!(
            plain(&migration(&result)),
            "game moved from v1 to v2: not drained in time\n  \
               switched in 412 µs, drained in 24 ms\n  \
               3 handshakes waited for, 1 connection accepted by the old instance meanwhile\n  \
               2 left behind at the deadline\n  \
               5 listen queue overflows\n"
        );
    }

    #[test]
    fn what_changed_nothing_counts_nothing() {
        assert_eq!(
            plain(&migration(&result("unchanged"))),
            "game is served by v2 already\n"
        );
        assert_eq!(
            plain(&migration(&result("dry_run"))),
            "game could move from v1 to v2; nothing was changed\n"
        );
    }

    #[test]
    fn warnings_come_last() {
        let mut result = result("dry_run");
        result.warnings = vec!["backlog differs".to_owned(), "so-rcvbuf differs".to_owned()];
        assert_eq!(
            plain(&migration(&result)),
            "game could move from v1 to v2; nothing was changed\n  \
               warning: backlog differs\n  \
               warning: so-rcvbuf differs\n"
        );
    }

    #[test]
    fn sessions_that_were_waited_for_are_told() {
        let mut result = result("unchanged");
        result.sessions_left = Some(0);
        assert_eq!(
            plain(&migration(&result)),
            "game is served by v2 already\n  no session is left on the old instances\n"
        );
        result.outcome = "sessions_left".to_owned();
        result.from.clear();
        result.sessions_left = Some(1);
        assert_eq!(
            plain(&migration(&result)),
            "game is served by v2: 1 session left on the old instances\n"
        );
    }

    #[test]
    fn progress_names_what_is_left() {
        let mut step = Progress {
            phase: "draining".to_owned(),
            elapsed_ms: 15,
            handshakes: Some(1),
            queued: Some(4),
            sessions: None,
        };
        assert_eq!(
            progress(&step),
            "draining after 15 ms, 1 handshake and 4 queued left"
        );
        step.handshakes = None;
        step.queued = None;
        assert_eq!(progress(&step), "draining after 15 ms");
        step.phase = "sessions".to_owned();
        step.sessions = Some(57);
        assert_eq!(progress(&step), "sessions after 15 ms, 57 sessions left");
    }
}
