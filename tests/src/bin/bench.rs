//! The benchmarks: `cargo xtask bench` builds and runs this.

use clap::Parser as _;
use reuseport_tests::bench::{Arguments, run};

fn main() -> anyhow::Result<()> {
    run(&Arguments::parse())
}
