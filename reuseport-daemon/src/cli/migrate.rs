//! `migrate` and `rollback`.

use std::{fmt, str::FromStr, time::Duration};

use clap::{Args, ValueEnum};

use super::{arguments, error::CliError, output::Output, render};
use crate::{
    api::{
        client::{Client, ClientError},
        exit_code,
        wire::{Changed, Migrate, MigrationReply, MigrationResult, ServiceRef},
    },
    domain::{Label, ServiceName, Setting, UnitName},
};

#[derive(Debug, Args)]
pub(super) struct MigrateArgs {
    /// The service
    service: ServiceName,
    #[command(flatten)]
    target: Target,
    /// What to call a new instance [default: its unit's name, or g and its generation]
    #[arg(long, conflicts_with = "to")]
    label: Option<Label>,
    /// How the old queues are emptied
    #[arg(long, value_enum, default_value_t = Drain::Owner)]
    drain: Drain,
    /// What happens to the old listeners: keep, shutdown, or signal:NAME
    #[arg(long, value_name = "HOW", default_value = "keep")]
    retire: Retire,
    /// How long to wait for the old queues, such as 30s [default: 30s, at most a day]
    #[arg(long, value_name = "DUR", value_parser = arguments::duration)]
    drain_timeout: Option<Duration>,
    /// When the service has moved, wait up to that long until the old instances have no session left
    #[arg(long, value_name = "DUR", value_parser = arguments::duration)]
    wait_sessions: Option<Duration>,
    /// Check everything and change nothing
    #[arg(long)]
    dry_run: bool,
    /// A setting that may differ between old and new listeners, such as tcp-save-syn
    #[arg(long, value_name = "NAME")]
    allow_mismatch: Vec<Setting>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Target {
    /// The label of the instance to move to
    #[arg(long, value_name = "LABEL")]
    to: Option<Label>,
    /// The process to register and to move to
    #[arg(long, value_name = "PID", value_parser = arguments::pid)]
    to_pid: Option<u32>,
    /// The systemd unit to register and to move to, such as game@v2.service
    #[arg(long, value_name = "NAME")]
    to_unit: Option<UnitName>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Drain {
    /// The old server keeps accepting until nothing is left
    Owner,
    /// The old listeners are shut down, and the kernel moves what they hold (Linux 5.14+)
    Kernel,
    /// The daemon accepts in the old server's place, and hands each connection to the new one, which
    /// has to receive them; works when the old server hangs
    Handoff,
}

impl Drain {
    fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Kernel => "kernel",
            Self::Handoff => "handoff",
        }
    }
}

/// What happens to the old listeners.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Retire {
    Keep,
    Shutdown,
    Signal(String),
}

impl FromStr for Retire {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.strip_prefix("signal:")) {
            ("keep", _) => Ok(Self::Keep),
            ("shutdown", _) => Ok(Self::Shutdown),
            (_, Some(name)) => {
                let name = name.to_ascii_uppercase();
                let name = name.strip_prefix("SIG").unwrap_or(&name);
                if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric()) {
                    return Err("a signal is named like TERM or QUIT".to_owned());
                }
                Ok(Self::Signal(name.to_owned()))
            }
            (_, None) => Err("there are keep, shutdown and signal:NAME".to_owned()),
        }
    }
}

impl fmt::Display for Retire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keep => f.write_str("keep"),
            Self::Shutdown => f.write_str("shutdown"),
            Self::Signal(name) => write!(f, "signal:{name}"),
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct RollbackArgs {
    /// The service
    service: ServiceName,
}

impl From<MigrateArgs> for Migrate {
    fn from(args: MigrateArgs) -> Self {
        Self {
            service: args.service.to_string(),
            to: args.target.to.as_ref().map(ToString::to_string),
            to_pid: args.target.to_pid,
            to_unit: args.target.to_unit.as_ref().map(ToString::to_string),
            label: args.label.as_ref().map(ToString::to_string),
            drain: Some(args.drain.as_str().to_owned()),
            retire: Some(args.retire.to_string()),
            drain_timeout_ms: args.drain_timeout.map(arguments::millis),
            wait_sessions_ms: args.wait_sessions.map(arguments::millis),
            dry_run: args.dry_run,
            allow_mismatch: match args.allow_mismatch.as_slice() {
                [] => None,
                settings => Some(settings.iter().map(ToString::to_string).collect()),
            },
        }
    }
}

pub(super) async fn run(
    args: MigrateArgs,
    client: &mut Client,
    output: &mut Output<'_>,
) -> Result<u8, CliError> {
    let result = follow(&Migrate::from(args), client, output).await?;
    output.result(&result, render::migration)?;
    Ok(exit_code::of_migration(&result))
}

/// Shows the phases as they come, until the result is there.
async fn follow(
    parameters: &Migrate,
    client: &mut Client,
    output: &mut Output<'_>,
) -> Result<MigrationResult, CliError> {
    let mut replies = client
        .stream::<_, MigrationReply>("Migrate", parameters)
        .await?;
    while let Some(reply) = replies.next().await? {
        if let Some(progress) = &reply.progress {
            output.progress(progress, render::progress)?;
        }
        if let Some(result) = reply.result {
            return Ok(result);
        }
    }
    Err(ClientError::NoResult.into())
}

pub(super) async fn rollback(
    args: RollbackArgs,
    client: &mut Client,
    output: &mut Output<'_>,
) -> Result<(), CliError> {
    let parameters = ServiceRef {
        service: args.service.to_string(),
    };
    let changed: Changed = client.call("Rollback", &parameters, Vec::new()).await?;
    Ok(output.result(&changed, render::changed)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retire_has_three_forms() {
        let parse = |text: &str| text.parse::<Retire>();
        assert_eq!(parse("keep"), Ok(Retire::Keep));
        assert_eq!(parse("shutdown"), Ok(Retire::Shutdown));
        assert_eq!(parse("signal:QUIT"), Ok(Retire::Signal("QUIT".to_owned())));
        assert_eq!(
            parse("signal:sigterm"),
            Ok(Retire::Signal("TERM".to_owned()))
        );
        assert!(parse("signal:").is_err());
        assert!(parse("signal:SIG").is_err());
        assert!(parse("close").is_err());
        assert_eq!(Retire::Signal("USR1".to_owned()).to_string(), "signal:USR1");
    }
}
