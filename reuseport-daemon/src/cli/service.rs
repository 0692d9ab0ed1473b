//! `service add` and `service remove`.

use std::time::Duration;

use clap::{Args, Subcommand, builder::NonEmptyStringValueParser, value_parser};
use reuseport_common::MAX_SLOTS;

use super::{arguments, error::CliError, output::Output, render};
use crate::{
    api::{
        client::Client,
        wire::{AddService, Changed, ServiceRef},
    },
    domain::{Address, ServiceName, UnitPattern},
};

#[derive(Debug, Subcommand)]
pub(super) enum ServiceCommand {
    /// Start steering the addresses of a service
    Add(AddArgs),
    /// Stop steering a service; the kernel then spreads its connections over every listener
    Remove(RemoveArgs),
}

#[derive(Debug, Args)]
pub(super) struct AddArgs {
    /// What to call the service
    name: ServiceName,
    /// Where it listens: IP:PORT[,v6only][,device=NAME]; may be repeated
    #[arg(long, required = true, value_name = "ADDR")]
    listen: Vec<Address>,
    /// Name or number of the user that owns its sockets [default: who calls]
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    user: Option<String>,
    /// Path of its network namespace [default: the daemon's]
    #[arg(long, value_name = "PATH", value_parser = arguments::path)]
    netns: Option<String>,
    /// How many slots each address has: one more than the listeners it can hold, old and new together;
    /// 1024 unless it is said
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(2..=i64::from(MAX_SLOTS)))]
    slots: Option<u32>,
    /// Let connections wait while no instance serves, instead of refusing them (Linux 5.14+)
    #[arg(long)]
    park: bool,
    /// For how long they wait [default: 30s]
    #[arg(long, value_name = "DUR", requires = "park", value_parser = arguments::duration)]
    park_timeout: Option<Duration>,
    /// systemd units that become instances as soon as they listen, such as 'game@*.service'
    #[arg(long, value_name = "PATTERN")]
    instances: Option<UnitPattern>,
}

#[derive(Debug, Args)]
pub(super) struct RemoveArgs {
    /// The service
    name: ServiceName,
}

pub(super) async fn run(
    command: ServiceCommand,
    client: &mut Client,
    output: &mut Output<'_>,
) -> Result<(), CliError> {
    let changed: Changed = match command {
        ServiceCommand::Add(args) => {
            let parameters = AddService {
                name: args.name.to_string(),
                listen: args.listen.iter().map(ToString::to_string).collect(),
                user: args.user,
                netns: args.netns,
                slots: args.slots,
                park: args.park,
                park_timeout_ms: args.park_timeout.map(arguments::millis),
                instances: args.instances.as_ref().map(ToString::to_string),
            };
            client.call("AddService", &parameters, Vec::new()).await?
        }
        ServiceCommand::Remove(args) => {
            let parameters = ServiceRef {
                service: args.name.to_string(),
            };
            client
                .call("RemoveService", &parameters, Vec::new())
                .await?
        }
    };
    Ok(output.result(&changed, render::changed)?)
}
