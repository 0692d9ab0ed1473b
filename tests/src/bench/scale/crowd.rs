//! Clients by the ten thousand, in as many processes as that takes.

use std::{
    net::{Ipv4Addr, SocketAddr},
    process::Command,
    time::Duration,
};

use anyhow::Result;
use reuseport_daemon::lab::{process::Process, world::World};

use crate::{
    stage::{PORT, program},
    waiting_clients::READY,
};

/// How many connections a process has: every machine lets root have as many descriptors.
const EACH: usize = 12_500;

/// How many addresses of the loopback device they connect to: each is good for 55,000, which is how
/// many ports there are for clients.
const ADDRESSES: u8 = 4;

/// How long so many may take to connect.
const PATIENCE: Duration = Duration::from_secs(120);

/// What they do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// They connect, ask an HTTP server once, and stay.
    Sessions,
    /// They connect, and say nothing.
    Silent,
}

/// Clients that stay until this is dropped. Their connections are reset then.
#[derive(Debug)]
pub(super) struct Crowd {
    _processes: Vec<Process>,
}

impl Crowd {
    /// Starts them, and waits until all have connected.
    pub(super) fn gather(world: &World, kind: Kind, count: usize) -> Result<Self> {
        let mut processes = Vec::new();
        for first in (0..count).step_by(EACH) {
            let mut command = Command::new(program("clients")?);
            command.arg((count - first).min(EACH).to_string());
            if kind == Kind::Silent {
                command.arg("--silent");
            }
            command.args(targets().iter().map(SocketAddr::to_string));
            processes.push(Process::start(world.client(), command)?);
        }
        for process in &mut processes {
            process.wait_for(READY, PATIENCE)?;
        }
        Ok(Self {
            _processes: processes,
        })
    }
}

fn targets() -> Vec<SocketAddr> {
    (1..=ADDRESSES)
        .map(|last| SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), PORT)))
        .collect()
}
