//! reuseportd's own build and test commands: `cargo xtask COMMAND`.

mod bench;
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
    /// Install the Debian packages that tests, benchmarks and the eBPF build need and this machine lacks
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
    /// Measure what it costs and how it scales, beside what people use instead; needs root
    ///
    /// packet-path: what the program adds to the path of a SYN. rate: connections a second, steered and
    /// not. switch: how long a switch takes, and what clients notice of a migration. loss: connections
    /// lost by handovers, with nginx, haproxy, socket passing and reuseportd. scale: services,
    /// listeners, sessions, queues and handshakes by the thousand. idle: what the daemon does while
    /// nothing happens.
    ///
    /// What is compared is measured in turn, and given as the median of several rounds with the
    /// quartiles in parentheses. Nothing fails because a number is bad. Everything takes ten minutes on
    /// two processors that have nothing else to do.
    Bench {
        /// Which of them; all where none is named
        #[arg(value_name = "NAME")]
        names: Vec<String>,
        /// Fewer rounds: a minute for everything, enough to see whether it works
        #[arg(long)]
        quick: bool,
        /// Print one JSON object for each
        #[arg(long)]
        json: bool,
        /// Put the tables into docs/performance.md, besides
        #[arg(long)]
        write: bool,
    },
    /// Run what needs root, without the unit tests: here, or the scenarios on other kernels
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
        Command::Bench {
            names,
            quick,
            json,
            write,
        } => bench::run(&names, quick, json, write),
        Command::IntegrationTest { place } => integration::run(&place),
    }
}
