//! The daemon.

use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;
use reuseport_daemon::{
    daemon::{self, Options},
    sys::{allocator::use_one_arena, environment::Environment},
};

/// Moves a live TCP service from one process to another without losing a connection.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Configuration file [default: /etc/reuseportd/reuseportd.toml, which need not exist]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Control socket
    #[arg(long, value_name = "PATH", default_value = "/run/reuseportd/control")]
    socket: PathBuf,
    /// Where programs and maps are pinned; mounted if it is not a bpffs
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/bpf")]
    bpffs: PathBuf,
    /// What to log, such as `debug` or `reuseport_daemon=trace,info`
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
}

fn main() -> anyhow::Result<()> {
    // First, while there is nothing else.
    use_one_arena();
    let environment = Environment::take().context("taking what the service manager passes")?;
    let arguments = Arguments::parse();
    let options = Options {
        config: arguments.config,
        socket: arguments.socket,
        bpffs: arguments.bpffs,
        log: arguments.log,
    };
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?
        .block_on(daemon::run(options, environment))?;
    Ok(())
}
