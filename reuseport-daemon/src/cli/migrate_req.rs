//! `migrate-req show|on|off`.

use clap::{Args, Subcommand};

use super::{arguments, error::CliError, output::Output, render};
use crate::api::{
    client::Client,
    wire::{MigrateReq, MigrateReqState},
};

#[derive(Debug, Subcommand)]
pub(super) enum MigrateReqCommand {
    /// Show the setting, and whether this kernel migrates at all
    Show(MigrateReqArgs),
    /// Let the kernel move connections of a listener that closes
    On(MigrateReqArgs),
    /// Let only the steering program do so
    Off(MigrateReqArgs),
}

#[derive(Debug, Args)]
pub(super) struct MigrateReqArgs {
    /// Path of the network namespace [default: the daemon's]
    #[arg(long, value_name = "PATH", value_parser = arguments::path)]
    netns: Option<String>,
}

pub(super) async fn run(
    command: MigrateReqCommand,
    client: &mut Client,
    output: &mut Output<'_>,
) -> Result<(), CliError> {
    let (set, MigrateReqArgs { netns }) = match command {
        MigrateReqCommand::Show(args) => (None, args),
        MigrateReqCommand::On(args) => (Some(true), args),
        MigrateReqCommand::Off(args) => (Some(false), args),
    };
    let parameters = MigrateReq { set, netns };
    let state: MigrateReqState = client.call("MigrateReq", &parameters, Vec::new()).await?;
    Ok(output.result(&state, render::migrate_req)?)
}
