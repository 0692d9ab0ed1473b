//! `cargo xtask test`: every test, on the running kernel.

use std::path::Path;

use anyhow::Result;

use crate::{
    integration::{self, Cells},
    paths, run,
};

/// Runs the tests of the workspace, then the scenarios and the table of handshakes with `arguments`,
/// and where `object` is given, with that eBPF object.
pub(crate) fn run(arguments: &[String], cells: Cells, object: Option<&Path>) -> Result<()> {
    integration::prepare()?;
    run::run(run::cargo(paths::root()).args(["test", "--workspace", "--locked"]))?;
    integration::local(arguments, cells, object)
}
