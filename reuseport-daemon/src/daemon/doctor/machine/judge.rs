//! What the machine's facts mean. Pure.

use std::time::Duration;

use super::{Bpffs, Descriptors, Duplicates, Facts, Refusal};
use crate::{
    daemon::{
        doctor::finding::Finding,
        parking::Keeping,
        probe::{GroupTrial, Moved, Steered},
    },
    steering::ProgramKind,
    sys::{capabilities::Capability, confinement::Confinement},
};

/// A grace period that takes longer makes every switch felt.
const LONG_GRACE: Duration = Duration::from_millis(250);

/// Findings from facts.
pub(in crate::daemon::doctor) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![judge_program(facts), judge_listing(&facts.group)];
    findings.extend(judge_group(&facts.group));
    findings.push(judge_migration(facts));
    findings.push(judge_grace(&facts.grace));
    findings.extend(judge_duplicates(&facts.duplicates, facts));
    findings.extend(judge_yama(facts));
    findings.extend(judge_capabilities(facts));
    findings.push(judge_bpffs(&facts.bpffs, facts.pinned.as_ref()));
    findings.push(judge_descriptors(facts.descriptors));
    findings.extend(facts.store.as_ref().map(judge_store));
    findings
}

fn has(facts: &Facts, capability: Capability) -> bool {
    facts
        .missing
        .as_ref()
        .is_ok_and(|missing| !missing.contains(&capability))
}

fn judge_program(facts: &Facts) -> Finding {
    match &facts.program {
        Ok(ProgramKind::SelectOrMigrate) => {
            Finding::ok("program", "the kernel takes select_or_migrate")
        }
        Ok(ProgramKind::Select) => Finding::note(
            "program",
            "the kernel takes select and not select_or_migrate (Linux 5.14+): a migration moves \
             new connections, an old listener must be drained by its owner before it closes, and no \
             service can park",
        ),
        Err(refusal) => judge_refusal(refusal, facts),
    }
}

fn judge_listing(group: &GroupTrial) -> Finding {
    const SUBJECT: &str = "sock_diag";
    match &group.listed {
        Ok(true) => Finding::ok(SUBJECT, "the kernel lists listening TCP sockets"),
        Ok(false) => Finding::error(SUBJECT, "the kernel does not list our own listeners"),
        Err(why) => Finding::error(SUBJECT, why.clone())
            .hint("the kernel's modules inet_diag and tcp_diag are needed"),
    }
}

fn judge_group(group: &GroupTrial) -> Vec<Finding> {
    let steered = group
        .steered
        .as_ref()
        .map(|steered| judge_steered(group, steered));
    let moved = group.moved.as_ref().map(judge_moved);
    steered.into_iter().chain(moved).collect()
}

fn judge_steered(group: &GroupTrial, steered: &Result<Steered, String>) -> Finding {
    const SUBJECT: &str = "reuseport group";
    let place = match &group.no_namespace {
        None => "in a network namespace of its own".to_owned(),
        Some(why) => format!("on loopback, as there was no network namespace for it ({why})"),
    };
    match steered {
        Ok(Steered::Exactly) => Finding::ok(
            SUBJECT,
            format!("a connection was steered and counted, {place}"),
        ),
        Ok(Steered::Miscounted(times)) => Finding::error(
            SUBJECT,
            format!("a connection was steered and counted {times} times, {place}"),
        ),
        Ok(Steered::Astray) => Finding::error(
            SUBJECT,
            format!("a connection did not arrive where it was steered to, {place}"),
        ),
        // A loopback that is down or filtered is no fault of the steering.
        Err(why) if group.no_namespace.is_some() => {
            Finding::warning(SUBJECT, format!("could not be tried {place}: {why}"))
        }
        Err(why) => Finding::error(SUBJECT, format!("none could be steered, {place}: {why}")),
    }
}

fn judge_moved(moved: &Result<Moved, String>) -> Finding {
    const SUBJECT: &str = "queue migration";
    match moved {
        Ok(Moved::Noticed) => Finding::ok(
            SUBJECT,
            "a connection in the queue of a listener that closed was moved, and its new owner was \
             woken",
        ),
        Ok(Moved::Silently) => Finding::warning(
            SUBJECT,
            "a connection in the queue of a listener that closed was moved, and its new owner was \
             not woken: it waits there until the next connection comes (CVE-2026-46015). Where \
             connections of a service were moved, reuseportd makes that next connection itself",
        )
        .hint("update the kernel: a server closes such a connection unused, and logs it perhaps"),
        Ok(Moved::Lost) => Finding::error(
            SUBJECT,
            "a connection in the queue of a listener that closed was lost",
        ),
        Err(why) => Finding::error(SUBJECT, format!("could not be tried: {why}")),
    }
}

fn judge_refusal(refusal: &Refusal, facts: &Facts) -> Finding {
    let finding = Finding::error(
        "program",
        format!("the kernel takes no steering program: {}", refusal.message),
    );
    match (refusal.not_permitted, has(facts, Capability::Bpf)) {
        (false, _) => finding,
        (true, false) => finding.hint("it takes CAP_BPF, which this process does not have"),
        (true, true) => finding.hint(suspects(&facts.confinement)),
    }
}

/// Who refuses a process that has the capability. Only what is seen to be there is named.
fn suspects(confinement: &Confinement) -> String {
    let mut suspects = Vec::new();
    if confinement.user_namespace {
        suspects.push("it is in a user namespace, where CAP_BPF does not count".to_owned());
    }
    if confinement.filtered {
        suspects.push("a system call filter (seccomp) is in force".to_owned());
    }
    if let Some(modules) = &confinement.modules {
        suspects.push(format!("active security modules: {modules}"));
    }
    if suspects.is_empty() {
        return "this process has CAP_BPF; look at the kernel's log for who refuses".to_owned();
    }
    format!("this process has CAP_BPF, but {}", suspects.join("; "))
}

fn judge_migration(facts: &Facts) -> Finding {
    const SUBJECT: &str = "listener migration";
    match (&facts.counts_migrations, facts.migrate_req) {
        (Ok(true), _) => Finding::ok(
            SUBJECT,
            "the kernel moves a closing listener's connections, and counts them",
        ),
        (Ok(false), Some(_)) => Finding::note(
            SUBJECT,
            "the kernel does not move a closing listener's connections. It has \
             net.ipv4.tcp_migrate_req all the same, as 5.10.188 and later 5.10 kernels do, and the \
             switch does nothing",
        ),
        (Ok(false), None) => Finding::note(
            SUBJECT,
            "the kernel does not move a closing listener's connections (Linux 5.14+)",
        ),
        (Err(why), _) => Finding::warning(SUBJECT, why.clone()),
    }
}

fn judge_grace(grace: &Result<Duration, String>) -> Finding {
    const SUBJECT: &str = "grace period";
    match grace {
        Ok(took) if *took > LONG_GRACE => Finding::warning(
            SUBJECT,
            format!(
                "it took {} ms to wait one out, and a migration waits for two",
                took.as_millis()
            ),
        ),
        Ok(took) => Finding::ok(SUBJECT, format!("waited out in {} ms", took.as_millis())),
        Err(why) => Finding::error(
            SUBJECT,
            format!("none can be waited out, so no switch would be safe: {why}"),
        ),
    }
}

fn judge_duplicates(duplicates: &Duplicates, facts: &Facts) -> Vec<Finding> {
    const SUBJECT: &str = "pidfd_getfd";
    if let Err(why) = &duplicates.own {
        let finding = Finding::error(SUBJECT, format!("no descriptor can be duplicated: {why}"));
        return vec![finding.hint("servers can still register by passing their listeners")];
    }
    let finding = match &duplicates.of_first {
        Some(Ok(())) => Finding::ok(SUBJECT, "works, on process 1 too"),
        None => Finding::ok(SUBJECT, "works on this process, which is process 1"),
        Some(Err(why)) if has(facts, Capability::SysPtrace) => Finding::warning(
            SUBJECT,
            format!(
                "works on this process and not on process 1, in spite of CAP_SYS_PTRACE: {why}"
            ),
        )
        .hint("Landlock or another security module, Yama, or a user namespace can forbid it"),
        Some(Err(_)) => Finding::note(
            SUBJECT,
            "works on this process and not on process 1: servers of other users, or with more \
             capabilities, can only register by passing their listeners",
        ),
    };
    vec![finding]
}

/// <https://elixir.bootlin.com/linux/v6.18/source/Documentation/admin-guide/LSM/Yama.rst>
fn judge_yama(facts: &Facts) -> Option<Finding> {
    const SUBJECT: &str = "kernel.yama.ptrace_scope";
    let scope = facts.yama?;
    Some(match (scope, has(facts, Capability::SysPtrace)) {
        (0, _) => Finding::ok(SUBJECT, "0: no further restriction"),
        (1 | 2, true) => Finding::ok(
            SUBJECT,
            format!("{scope}: asks for CAP_SYS_PTRACE, which this process has"),
        ),
        (1 | 2, false) => Finding::warning(
            SUBJECT,
            format!(
                "{scope}: without CAP_SYS_PTRACE, servers can only register by passing their \
                 listeners"
            ),
        ),
        (3.., _) => Finding::warning(
            SUBJECT,
            format!("{scope}: servers can only register by passing their listeners"),
        )
        .hint("it stays that way until the machine boots with a lower value"),
    })
}

fn judge_capabilities(facts: &Facts) -> Vec<Finding> {
    const SUBJECT: &str = "capabilities";
    let missing = match &facts.missing {
        Err(why) => return vec![Finding::warning(SUBJECT, why.clone())],
        Ok(missing) if missing.is_empty() => {
            return vec![Finding::ok(SUBJECT, "nothing is missing for full service")];
        }
        Ok(missing) => missing,
    };
    missing
        .iter()
        .map(|capability| {
            let message = format!("{} is missing: {}", capability.name(), use_of(*capability));
            // What it is needed for has been tried, which counts for more than the bit.
            if *capability == Capability::Bpf && facts.program.is_err() {
                Finding::error(SUBJECT, message)
            } else {
                Finding::note(SUBJECT, message)
            }
        })
        .collect()
}

/// What a capability is needed for, and what not.
fn use_of(capability: Capability) -> &'static str {
    match capability {
        Capability::Bpf => "needed for programs, maps and pins (CAP_SYS_ADMIN stands in for it)",
        Capability::Perfmon => {
            "needed only where the programs log (bpf-log; CAP_SYS_ADMIN stands in for it)"
        }
        Capability::NetAdmin => {
            "needed only to set net.ipv4.tcp_migrate_req, and for keys and marks of listeners"
        }
        Capability::SysPtrace => {
            "needed to register processes by their pid, and to retire their listeners, where they \
             are another user's or have capabilities that this process lacks"
        }
        Capability::DacReadSearch => {
            "needed only to register other users' processes by their pid, and to count their \
             sessions"
        }
        Capability::Chown => "needed only for sockets of our own in another user's group",
        Capability::NetBindService => "needed only for sockets of our own on ports below 1024",
        Capability::SysAdmin => {
            "needed only for services in other network namespaces, and to mount a bpffs"
        }
        Capability::Kill => "needed only for --retire signal:NAME on other users' processes",
    }
}

fn judge_bpffs(bpffs: &Bpffs, pinned: Option<&Result<(), String>>) -> Finding {
    const SUBJECT: &str = "bpffs";
    let path = bpffs.path.display();
    match (&bpffs.is_one, pinned) {
        (Ok(true), Some(Ok(()))) => Finding::ok(SUBJECT, format!("a map can be pinned in {path}")),
        (Ok(true), Some(Err(why))) => {
            Finding::error(SUBJECT, format!("no map can be pinned in {path}: {why}"))
        }
        (Ok(true), None) => Finding::ok(SUBJECT, format!("{path} is one; nothing was pinned")),
        // A daemon that runs has one.
        (Ok(false), _) => Finding::warning(
            SUBJECT,
            format!("{path} is none yet; reuseportd mounts one there when it starts, if it may"),
        )
        .hint(format!("run: mount -t bpf bpf {path}")),
        (Err(why), _) => Finding::error(SUBJECT, format!("{path}: {why}")),
    }
}

/// A group takes eight descriptors and a service four more; an instance takes one, and a duplicate
/// of every listener while it is looked at.
fn judge_descriptors(descriptors: Descriptors) -> Finding {
    const SUBJECT: &str = "file descriptors";
    const ROOM: u64 = 256;
    let Descriptors { open, limit } = descriptors;
    match limit {
        None => Finding::ok(SUBJECT, format!("{open} open, without a limit")),
        Some(limit) if limit.saturating_sub(open) < ROOM => Finding::warning(
            SUBJECT,
            format!("{open} open of at most {limit} (RLIMIT_NOFILE)"),
        )
        .hint("raise LimitNOFILE= of the daemon's unit: a group takes 8, a listener 1 while it is looked at"),
        Some(limit) => Finding::ok(SUBJECT, format!("{open} open of at most {limit}")),
    }
}

/// Nothing is lost by it where no service parks; what one loses is said of the service.
fn judge_store(store: &Keeping) -> Finding {
    const SUBJECT: &str = "descriptor store";
    let Some(trouble) = store.trouble() else {
        return Finding::ok(
            SUBJECT,
            "the service manager keeps parking listeners, so that connections that wait outlive the \
             daemon",
        );
    };
    let finding = Finding::note(
        SUBJECT,
        format!("connections that wait end with the daemon: {trouble}"),
    );
    match store {
        Keeping::Refused => finding.hint(
            "FileDescriptorStoreMax= of the daemon's unit: two for each address of a service that \
             parks, and one more",
        ),
        Keeping::Kept | Keeping::Nobody | Keeping::Unanswered | Keeping::Failed(_) => finding,
    }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
