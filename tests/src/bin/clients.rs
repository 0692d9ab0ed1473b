//! Clients that connect and stay, for the benchmarks.

use clap::Parser as _;
use reuseport_tests::waiting_clients::{Arguments, run};

fn main() -> anyhow::Result<()> {
    run(&Arguments::parse())
}
