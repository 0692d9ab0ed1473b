//! `register` and `release`.

use clap::Args;

use super::{arguments, error::CliError, output::Output, render};
use crate::{
    api::{
        client::Client,
        wire::{Changed, Register, Registered, Release},
    },
    domain::{Label, ServiceName, UnitName},
};

#[derive(Debug, Args)]
pub(super) struct RegisterArgs {
    /// The service
    service: ServiceName,
    #[command(flatten)]
    server: Server,
    /// What to call the instance [default: its unit's name, or g and its generation]
    #[arg(long)]
    label: Option<Label>,
}

/// The first instance serves at once, later ones stand by.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Server {
    /// The server's process
    #[arg(long, value_parser = arguments::pid)]
    pid: Option<u32>,
    /// The systemd unit that the server runs as, such as game@v1.service
    #[arg(long, value_name = "NAME")]
    unit: Option<UnitName>,
}

#[derive(Debug, Args)]
pub(super) struct ReleaseArgs {
    /// The service
    service: ServiceName,
    /// The instance
    label: Label,
}

pub(super) async fn register(
    args: RegisterArgs,
    client: &mut Client,
    output: &mut Output<'_>,
) -> Result<(), CliError> {
    let parameters = Register {
        service: args.service.to_string(),
        pid: args.server.pid,
        unit: args.server.unit.as_ref().map(ToString::to_string),
        label: args.label.as_ref().map(ToString::to_string),
    };
    let registered: Registered = client.call("Register", &parameters, Vec::new()).await?;
    Ok(output.result(&registered, render::registered)?)
}

pub(super) async fn release(
    args: ReleaseArgs,
    client: &mut Client,
    output: &mut Output<'_>,
) -> Result<(), CliError> {
    let parameters = Release {
        service: args.service.to_string(),
        label: args.label.to_string(),
    };
    let changed: Changed = client.call("Release", &parameters, Vec::new()).await?;
    Ok(output.result(&changed, render::changed)?)
}
