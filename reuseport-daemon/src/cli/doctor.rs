//! `doctor`.

use clap::Args;

use super::{error::CliError, output::Output, render};
use crate::{
    api::{
        client::Client,
        exit_code,
        wire::{Doctor, ServiceFilter},
    },
    domain::ServiceName,
};

#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// The service [default: every one that you may see]
    service: Option<ServiceName>,
}

pub(super) async fn run(
    args: DoctorArgs,
    client: &mut Client,
    output: &mut Output<'_>,
) -> Result<u8, CliError> {
    let parameters = ServiceFilter {
        service: args.service.as_ref().map(ToString::to_string),
    };
    let doctor: Doctor = client.call("Doctor", &parameters, Vec::new()).await?;
    output.result(&doctor, render::doctor)?;
    Ok(exit_code::of_doctor(&doctor))
}
