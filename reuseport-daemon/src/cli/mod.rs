//! `reuseportctl`: one module per family of commands. Each parses its arguments into the domain's
//! words, makes one call, and hands what came back to [`render`].
//!
//! Architecture Invariant: nothing here opens standard output or error. The binary passes them in.

mod arguments;
mod demo;
mod doctor;
mod error;
mod instance;
mod migrate;
mod migrate_req;
mod output;
mod render;
mod service;
mod status;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

pub use self::output::Output;
use self::{error::CliError, output::Style};
use crate::{
    api::{client::Client, exit_code},
    lab::server,
};

/// Moves live TCP services from one process to another without losing a connection.
#[derive(Debug, Parser)]
#[command(name = "reuseportctl", version, propagate_version = true)]
pub struct Cli {
    /// The daemon's control socket
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        env = "REUSEPORTD_SOCKET",
        default_value = "/run/reuseportd/control"
    )]
    socket: PathBuf,

    /// Print one JSON object per line, the last one the result or the error
    #[arg(long, global = true)]
    json: bool,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say which addresses are steered
    #[command(subcommand)]
    Service(service::ServiceCommand),
    /// Make a running server an instance of a service
    Register(instance::RegisterArgs),
    /// Move a service to another instance
    Migrate(migrate::MigrateArgs),
    /// Go back, as long as the old listeners are not retired
    Rollback(migrate::RollbackArgs),
    /// Forget an instance; refused while it serves
    Release(instance::ReleaseArgs),
    /// Show services, groups and instances
    Status(status::StatusArgs),
    /// Show or set whether the kernel itself moves connections of closing listeners
    #[command(subcommand)]
    MigrateReq(migrate_req::MigrateReqCommand),
    /// Look at everything that steering depends on
    Doctor(doctor::DoctorArgs),
    /// Hand a service over in four ways, side by side, and count what is lost
    ///
    /// Needs root, and no daemon: it starts one of its own, in network namespaces of its own, and
    /// leaves nothing behind.
    Demo(demo::DemoArgs),
    /// Be one of the demo's servers
    #[command(name = demo::SERVER_COMMAND, hide = true)]
    LabServer(server::Options),
}

/// Runs the command and returns the exit code (see [`exit_code`]).
pub async fn run(cli: Cli, mut output: Output<'_>) -> u8 {
    output.set_style(if cli.json { Style::Json } else { Style::Text });
    match execute(cli, &mut output).await {
        Ok(code) => code,
        Err(error) => {
            // A reader that has gone away has seen what it wanted.
            let _ = output.error(&error);
            error.exit_code()
        }
    }
}

async fn execute(cli: Cli, output: &mut Output<'_>) -> Result<u8, CliError> {
    let client = async || Client::connect(&cli.socket).await;
    match cli.command {
        Command::Service(command) => service::run(command, &mut client().await?, output).await?,
        Command::Register(args) => instance::register(args, &mut client().await?, output).await?,
        Command::Release(args) => instance::release(args, &mut client().await?, output).await?,
        Command::Rollback(args) => migrate::rollback(args, &mut client().await?, output).await?,
        Command::Status(args) => status::run(args, &mut client().await?, output).await?,
        Command::MigrateReq(command) => {
            migrate_req::run(command, &mut client().await?, output).await?;
        }
        Command::Migrate(args) => return migrate::run(args, &mut client().await?, output).await,
        Command::Doctor(args) => {
            return match client().await {
                Ok(mut client) => doctor::run(args, &mut client, output).await,
                Err(error) => doctor::alone(&args, &error.into(), output),
            };
        }
        Command::Demo(args) => return demo::run(args, output).await,
        Command::LabServer(options) => return demo::serve(options).await,
    }
    Ok(exit_code::DONE)
}
