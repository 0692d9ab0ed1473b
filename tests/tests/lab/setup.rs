//! What every test here starts with.

use std::{
    io::{self, Write},
    time::Duration,
};

use anyhow::Context;
use reuseport_daemon::{
    domain::Address,
    lab::{
        fixture::{Fixture, Program},
        link::LinkOptions,
        load::Report,
        server::Options,
        wire::Tag,
        world::World,
    },
};
pub(crate) use reuseport_tests::sockets::listeners_of;

/// Where the servers listen, unless a test is about that.
pub(crate) const PORT: u16 = 7777;

/// How long a load runs that is to show a rate.
pub(crate) const RUN: Duration = Duration::from_secs(2);

/// How long a load may take to make a few more connections.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) fn tag(label: &str) -> Tag {
    label.parse().expect("a test's own label")
}

/// A server with `label` on any address of the usual port.
pub(crate) fn v4_options(label: &str) -> Options {
    let any: Address = format!("0.0.0.0:{PORT}").parse().expect("address");
    Options::new(tag(label), vec![any])
}

pub(crate) fn start(world: &World, options: &Options) -> anyhow::Result<Fixture> {
    let program = Program {
        path: env!("CARGO_BIN_EXE_fixture").into(),
        arguments: Vec::new(),
    };
    Fixture::start(world.server(), &program, options)
        .with_context(|| format!("start {}", options.label))
}

/// A round trip of 20 ms, as between a client and a server some way off.
pub(crate) fn far_away() -> anyhow::Result<World> {
    Ok(World::linked(LinkOptions::with_delay(
        Duration::from_millis(10),
    ))?)
}

/// Says what was measured; the verdict is the test's.
pub(crate) fn tell(what: &str, report: &Report) {
    let ledger = &report.connections;
    let line = format!(
        "{what}: {} connections, {} a second, {} lost, longest {:?}",
        ledger.begun(),
        report.rate(),
        ledger.lost(),
        ledger.longest(),
    );
    // A test whose output is closed still has its verdict.
    let _ = writeln!(io::stderr(), "{line}");
}
