//! What a `Migrate` call wants, where its parameters make sense.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use super::super::{instances::label, parse};
use crate::{
    api::wire::{Failure, Migrate},
    daemon::failure::bad_parameter,
    domain::{Drain, Label, Options, Refusal, Retire, Setting, UnitName},
    sys::{clock, signal::Signal},
};

/// How long a migration waits for the old queues unless it is told otherwise.
const DRAIN_TIMEOUT_MS: u64 = 30_000;

/// The longest that it can be told to wait: a day.
const LONGEST_DRAIN_TIMEOUT_MS: u64 = 24 * 3600 * 1000;

/// The longest that the wait for old sessions can be told to take: a year.
const LONGEST_SESSION_WAIT_MS: u64 = 365 * 24 * 3600 * 1000;

/// How a migration is to be made.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) options: Options,
    pub(super) dry_run: bool,
    /// Settings that may differ.
    pub(super) allowed: BTreeSet<Setting>,
    /// How long to wait for the old sessions afterwards, if at all.
    pub(super) wait_sessions: Option<Duration>,
    /// When it was asked for.
    pub(super) started: Instant,
}

/// Where it is to go.
#[derive(Clone, Debug)]
pub(super) enum Target {
    Label(Label),
    Pid {
        pid: u32,
        label: Option<Label>,
    },
    Unit {
        unit: UnitName,
        label: Option<Label>,
    },
}

/// Where the call wants to go, and how.
pub(super) fn read(parameters: &Migrate) -> Result<(Target, Wanted), Failure> {
    let target = target(parameters)?;
    let wanted = Wanted {
        options: options(parameters)?,
        dry_run: parameters.dry_run,
        allowed: allowed(parameters)?,
        wait_sessions: parameters
            .wait_sessions_ms
            .map(|limit| Duration::from_millis(limit.min(LONGEST_SESSION_WAIT_MS))),
        started: Instant::now(),
    };
    Ok((target, wanted))
}

fn target(parameters: &Migrate) -> Result<Target, Failure> {
    let named = label(parameters.label.as_deref())?;
    match (
        &parameters.to,
        parameters.to_pid,
        &parameters.to_unit,
        named,
    ) {
        (Some(to), None, None, None) => Ok(Target::Label(parse("to", to)?)),
        (None, Some(pid), None, label) => Ok(Target::Pid { pid, label }),
        (None, None, Some(unit), label) => Ok(Target::Unit {
            unit: parse("to_unit", unit)?,
            label,
        }),
        (Some(_) | None, _, _, _) => Err(Refusal::Target.into()),
    }
}

fn options(parameters: &Migrate) -> Result<Options, Failure> {
    let timeout = parameters.drain_timeout_ms.unwrap_or(DRAIN_TIMEOUT_MS);
    Ok(Options {
        drain: match parameters.drain.as_deref() {
            None | Some("owner") => Drain::Owner,
            Some("kernel") => Drain::Kernel,
            Some("handoff") => Drain::Handoff,
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
        migrate_req: None,
    })
}

fn signal(name: &str) -> Result<u32, Failure> {
    let signal: Signal = name
        .parse()
        .map_err(|error| bad_parameter("retire", &error))?;
    Ok(signal.number())
}

fn allowed(parameters: &Migrate) -> Result<BTreeSet<Setting>, Failure> {
    let names = parameters.allow_mismatch.iter().flatten();
    let settings = names.map(|name| name.parse());
    let settings: Result<_, _> = settings.collect();
    Ok(settings.map_err(Refusal::UnknownSetting)?)
}
