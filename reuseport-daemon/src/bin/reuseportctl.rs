//! The operator's command.

use std::{
    io::{IsTerminal, stderr},
    process::ExitCode,
};

use anyhow::Context;
use clap::Parser;
use reuseport_daemon::cli::{Cli, Output, run};

fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    // These take colours out where they do not belong: pipes, NO_COLOR, plain terminals.
    let mut out = anstream::stdout();
    let mut err = anstream::stderr();
    let mut output = Output::new(&mut out, &mut err);
    if stderr().is_terminal() {
        output = output.with_progress_line();
    }
    let code = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?
        .block_on(run(cli, output));
    Ok(ExitCode::from(code))
}
