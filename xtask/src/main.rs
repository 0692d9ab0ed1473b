//! reuseportd's own build and test commands: `cargo xtask COMMAND`.

mod build_ebpf;
mod bytecode;
mod deb;
mod demo;
mod integration;
mod lint;
mod llvm;
mod paths;
mod run;
mod setup;
mod test;
mod toolchain;
mod vm;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::integration::Cells;

/// reuseportd's own build and test commands.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build the programs and run `reuseportctl demo`; needs root, and asks for it through sudo
    Demo {
        /// Passed to the demo: --migrations, --clients, --seconds
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Install the Debian packages that the tests and the eBPF build need and this machine lacks
    Setup,
    /// Build the eBPF object and put it, with its digests, where the daemon includes it from
    BuildEbpf {
        /// Change nothing: build, and compare with what is committed. Where the compiler is
        /// another one than it was made with, run the scenarios with the fresh object instead
        #[arg(long)]
        check: bool,
    },
    /// Build the Debian package
    Deb,
    /// Check formatting, clippy's lints, licences and sources of dependencies
    Lint,
    /// Run every test on the running kernel; needs root
    Test {
        /// Play every cell of the table of handshakes, not only those that cover it: some thousands
        #[arg(long)]
        all_cells: bool,
        /// Passed to the scenarios: a filter, --list, --nocapture and the like
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Run the scenarios alone: here, or on other kernels
    IntegrationTest {
        #[command(subcommand)]
        place: integration::Place,
    },
}

fn main() -> ExitCode {
    match dispatch(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            run::say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn dispatch(command: Command) -> Result<()> {
    match command {
        Command::Demo { arguments } => demo::run(&arguments),
        Command::Setup => setup::run(),
        Command::BuildEbpf { check: false } => build_ebpf::run(),
        Command::BuildEbpf { check: true } => build_ebpf::check(),
        Command::Deb => deb::run(),
        Command::Lint => lint::run(),
        Command::Test {
            all_cells,
            arguments,
        } => {
            let cells = if all_cells {
                Cells::All
            } else {
                Cells::Covering
            };
            test::run(&arguments, cells, None)
        }
        Command::IntegrationTest { place } => integration::run(&place),
    }
}
