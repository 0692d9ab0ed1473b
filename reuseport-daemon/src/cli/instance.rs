//! `register` and `release`.

use clap::Args;

use super::{arguments, error::CliError, output::Output, render};
use crate::{
    api::{
        client::Client,
        wire::{Changed, Register, Registered, Release},
    },
    domain::{Label, ServiceName},
};

#[derive(Debug, Args)]
pub(super) struct RegisterArgs {
    /// The service
    service: ServiceName,
    /// The server's process; the first instance serves at once, later ones stand by
    #[arg(long, value_parser = arguments::pid)]
    pid: u32,
    /// What to call the instance [default: g and its generation]
    #[arg(long)]
    label: Option<Label>,
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
        pid: Some(args.pid),
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
