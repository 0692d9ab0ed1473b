//! `status`.

use clap::Args;

use super::{error::CliError, output::Output, render};
use crate::{
    api::{
        client::Client,
        wire::{ServiceFilter, Status},
    },
    domain::ServiceName,
};

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// The service [default: every one that you may see]
    service: Option<ServiceName>,
}

pub(super) async fn run(
    args: StatusArgs,
    client: &mut Client,
    output: &mut Output<'_>,
) -> Result<(), CliError> {
    let parameters = ServiceFilter {
        service: args.service.as_ref().map(ToString::to_string),
    };
    let status: Status = client.call("Status", &parameters, Vec::new()).await?;
    Ok(output.result(&status, render::status)?)
}
