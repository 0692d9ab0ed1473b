//! Servers of other users and in other places than the stage's.

use std::path::PathBuf;

use anyhow::{Context, Result};
use reuseport_daemon::{
    lab::{
        fixture::{Fixture, Program},
        server::Options,
    },
    sys::netns::Netns,
};

use crate::stage::program;

/// A user without any privilege, who need not be in the user database.
pub const NOBODY: u32 = 65_534;

/// Starts a server of root's in a namespace, and waits until it listens.
///
/// # Errors
///
/// Where it does not start.
pub fn server_in(netns: &Netns, options: &Options) -> Result<Fixture> {
    let program = Program {
        path: program("fixture")?,
        arguments: Vec::new(),
    };
    start(netns, &program, options)
}

/// Starts a server that runs as another user, and waits until it listens.
///
/// # Errors
///
/// Where it does not start.
pub fn server_as(uid: u32, netns: &Netns, options: &Options) -> Result<Fixture> {
    let program = Program {
        path: PathBuf::from("setpriv"),
        arguments: vec![
            format!("--reuid={uid}").into(),
            format!("--regid={uid}").into(),
            "--clear-groups".into(),
            program("fixture")?.into(),
        ],
    };
    start(netns, &program, options)
}

fn start(netns: &Netns, program: &Program, options: &Options) -> Result<Fixture> {
    Fixture::start(netns, program, options).with_context(|| format!("start {}", options.label))
}
