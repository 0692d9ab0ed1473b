//! What reuseportd costs, how it scales, and what people would get of what they would use instead.
//!
//! They are benchmarks and no tests: nothing fails because a number is bad. What is compared is measured
//! in turn, on servers, links and clients of the lab, and given as medians, with the quartiles of the
//! rounds in parentheses.

mod document;
mod host;
mod idle;
mod loss;
mod many;
mod packet_path;
mod rate;
mod report;
mod rounds;
mod scale;
mod summary;
mod switch;

use std::{
    io::{self, Write as _},
    path::PathBuf,
    time::Instant,
};

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};

use reuseport_daemon::sys::limits;

use self::{report::Report, rounds::Effort};

/// What is to be measured, and where it is to be told.
#[derive(Clone, Debug, Parser)]
#[command(name = "bench")]
pub struct Arguments {
    /// Which benchmarks to run; all of them where none is named
    names: Vec<Name>,
    /// Fewer rounds: a minute instead of ten
    #[arg(long)]
    quick: bool,
    /// Print one JSON object for each benchmark
    #[arg(long)]
    json: bool,
    /// A page whose markers get the results, besides
    #[arg(long, value_name = "FILE")]
    page: Option<PathBuf>,
}

/// A benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Name {
    /// What the program adds to the path of a SYN
    PacketPath,
    /// How many connections a second a server takes, steered and not
    Rate,
    /// How long a switch takes, and what clients notice of a migration
    Switch,
    /// How many connections a handover loses, beside what else there is
    Loss,
    /// Services, listeners, connections and handshakes by the thousand
    Scale,
    /// What the daemon does while nothing happens
    Idle,
}

impl Name {
    fn as_str(self) -> &'static str {
        match self {
            Self::PacketPath => "packet-path",
            Self::Rate => "rate",
            Self::Switch => "switch",
            Self::Loss => "loss",
            Self::Scale => "scale",
            Self::Idle => "idle",
        }
    }

    fn measure(self, effort: Effort) -> Result<Report> {
        let (tables, goals) = match self {
            Self::PacketPath => packet_path::measure(effort),
            Self::Rate => rate::measure(effort),
            Self::Switch => switch::measure(effort),
            Self::Loss => loss::measure(effort),
            Self::Scale => scale::measure(effort),
            Self::Idle => idle::measure(effort),
        }?;
        Ok(Report {
            name: self.as_str(),
            tables,
            goals,
        })
    }
}

/// Runs the benchmarks and tells what they found, each as soon as it has ended.
///
/// # Errors
///
/// Where something cannot be measured, and never because of what was measured.
pub fn run(arguments: &Arguments) -> Result<()> {
    // Connections and listeners by the thousand are descriptors of this process and of its children.
    limits::raise_descriptors().context("raise RLIMIT_NOFILE")?;
    let effort = if arguments.quick {
        Effort::Quick
    } else {
        Effort::Full
    };
    let names = match &arguments.names[..] {
        [] => Name::value_variants(),
        some => some,
    };
    for name in names {
        let host = host::describe(effort)?;
        let begun = Instant::now();
        let report = name
            .measure(effort)
            .with_context(|| name.as_str().to_owned())?;
        let seconds = begun.elapsed().as_secs();
        progress(&format!("{} took {seconds} s", name.as_str()));
        let text = format!("{}\n{host}\n", report.text());
        if arguments.json {
            show(&report.json().to_string())?;
        } else {
            show(&format!("## {}\n\n{text}", name.as_str()))?;
        }
        if let Some(page) = &arguments.page {
            document::update(page, name.as_str(), &text)?;
        }
    }
    Ok(())
}

/// A line for whoever waits.
fn progress(line: &str) {
    // Nobody waits where this fails.
    let _ = writeln!(io::stderr().lock(), "bench: {line}");
}

fn show(text: &str) -> Result<()> {
    writeln!(io::stdout().lock(), "{text}").context("write to standard output")
}
