//! `demo`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use clap::Args;
use tokio::{signal, sync::mpsc, task};

use super::{error::CliError, output::Output, render};
use crate::{
    api::exit_code,
    demo::{Plan, Programs, Recipe, run as run_demo},
    lab::server::{Options, serve as serve_lab},
};

/// The hidden subcommand that makes this program a server.
pub(super) const SERVER_COMMAND: &str = "lab-server";

#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// How many handovers in each way and at each distance
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    migrations: u32,
    /// How many clients connect at a time
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    clients: u32,
    /// How long all of it may take; fewer handovers are made where the time is short
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,
}

/// Runs the demo. A signal to stop ends it in good order.
pub(super) async fn run(args: DemoArgs, output: &mut Output<'_>) -> Result<u8, CliError> {
    let programs = Programs::beside_this_one(SERVER_COMMAND)?;
    let plan = Plan {
        migrations: args.migrations,
        clients: args.clients,
        time: Duration::from_secs(args.seconds.into()),
    };
    let cancelled = Arc::new(AtomicBool::new(false));
    let (cells, mut growing) = mpsc::unbounded_channel();
    let stop = Arc::clone(&cancelled);
    let mut demo = task::spawn_blocking(move || {
        run_demo(&plan, &programs, &stop, |cell| {
            // An error would mean that nobody watches any more.
            let _ = cells.send(cell);
        })
    });
    let table = loop {
        tokio::select! {
            Some(cell) = growing.recv() => output.fleeting(&cell, render::cell)?,
            _ = signal::ctrl_c() => cancelled.store(true, Ordering::Relaxed),
            ended = &mut demo => break ended,
        }
    };
    let cells = table.map_err(|_| CliError::Panicked)??;
    let whole = !cancelled.load(Ordering::Relaxed);
    let ours_lost = cells
        .iter()
        .any(|it| it.recipe == Recipe::Reuseportd && it.lost > 0);
    output.result(&cells, |cells| render::cells(cells))?;
    Ok(if whole && !ours_lost {
        exit_code::DONE
    } else {
        exit_code::FAILED
    })
}

/// Is a server until it is told to end. It has a runtime of its own, hence the thread.
pub(super) async fn serve(options: Options) -> Result<u8, CliError> {
    task::spawn_blocking(move || serve_lab(&options))
        .await
        .map_err(|_| CliError::Panicked)??;
    Ok(exit_code::DONE)
}
