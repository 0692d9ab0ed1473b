//! The server that the scenarios move about: reuseportd's lab server as a program.

use reuseport_daemon::lab::server::{Options, serve};

fn main() -> anyhow::Result<()> {
    serve(&Options::from_command_line())?;
    Ok(())
}
