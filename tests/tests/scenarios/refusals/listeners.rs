//! What a server can pass that is no listener of the service.

use std::{
    fs::File,
    net::SocketAddr,
    os::{
        fd::OwnedFd,
        unix::net::{UnixDatagram, UnixListener, UnixStream},
    },
};

use anyhow::Result;
use reuseport_daemon::api::MAX_DESCRIPTORS;
use reuseport_tests::{
    sockets::{Made, connected, tcp, udp},
    stage::{PORT, Stage},
};
use serde_json::json;

use super::{
    cast::Cast,
    row::{Row, call, passed},
};

/// The descriptors.
pub(super) struct Descriptors {
    /// In the group of service `game`, and nobody's instance.
    fit: OwnedFd,
    file: OwnedFd,
    udp: OwnedFd,
    unix: [OwnedFd; 3],
    connected: OwnedFd,
    bound: OwnedFd,
    /// At the address of service `lone`.
    alone: OwnedFd,
    /// At the address of service `late`.
    shared_late: OwnedFd,
    /// At the IPv4 address of service `pair`.
    half_of_pair: OwnedFd,
    /// At the address of service `owned`.
    owned: OwnedFd,
    other_port: OwnedFd,
    other_netns: OwnedFd,
}

impl Descriptors {
    pub(super) fn make(stage: &Stage, cast: &Cast) -> Result<Self> {
        let netns = stage.world.server();
        let any = |port: u16| SocketAddr::from(([0, 0, 0, 0], port));
        let (stream, _) = UnixStream::pair()?;
        let path = stage.home().socket().with_file_name("unix");
        Ok(Self {
            fit: tcp(netns, any(PORT), Made::Listening)?,
            file: File::open("/dev/null")?.into(),
            udp: udp(netns, any(PORT))?,
            unix: [
                stream.into(),
                UnixListener::bind(path)?.into(),
                UnixDatagram::unbound()?.into(),
            ],
            // Not to the service whose connections are counted.
            connected: connected(netns, stage.world.v4(7802))?,
            bound: tcp(netns, any(7990), Made::Bound)?,
            alone: tcp(netns, any(7813), Made::Alone)?,
            shared_late: tcp(netns, any(7812), Made::SharedLate)?,
            half_of_pair: tcp(netns, any(7811), Made::Listening)?,
            owned: tcp(netns, any(7803), Made::Listening)?,
            other_port: tcp(netns, any(7991), Made::Listening)?,
            other_netns: tcp(&cast.other_netns, any(PORT), Made::Listening)?,
        })
    }

    pub(super) fn rows(&self, cast: &Cast) -> Vec<Row<'_>> {
        const UNIX: &str = "a Unix socket";
        const SILENT: &str = "no listener";
        let too_many = vec![&self.file; MAX_DESCRIPTORS + 1];
        vec![
            passed("a file", "game", &[&self.file], "not-a-socket"),
            passed("UDP", "game", &[&self.udp], "not-tcp"),
            passed(UNIX, "game", &[&self.unix[0]], "not-tcp"),
            passed(UNIX, "game", &[&self.unix[1]], "not-tcp"),
            passed(UNIX, "game", &[&self.unix[2]], "not-tcp"),
            passed(SILENT, "game", &[&self.connected], "not-listening"),
            passed(SILENT, "game", &[&self.bound], "not-listening"),
            passed("alone, passed", "lone", &[&self.alone], "no-reuseport"),
            passed(
                "SO_REUSEPORT too late",
                "late",
                &[&self.shared_late],
                "no-group",
            ),
            passed("one of two", "pair", &[&self.half_of_pair], "not-passed"),
            passed(
                "service of another user",
                "owned",
                &[&self.owned],
                "other-owner",
            ),
            passed(
                "another port, passed",
                "game",
                &[&self.other_port],
                "other-address",
            ),
            passed("another service's", "pair", &[&self.fit], "other-address"),
            passed(
                "another netns, passed",
                "game",
                &[&self.other_netns],
                "other-netns",
            ),
            passed("a file", "game", &[&self.fit, &self.file], "not-a-socket"),
            passed("too many", "game", &too_many, "too-many-descriptors"),
            call(
                "pid or descriptors",
                "Register",
                &json!({"service": "game"}),
                "pid-or-descriptors",
            ),
            call(
                "pid or descriptors",
                "Register",
                &json!({"service": "game", "pid": cast.new.pid()}),
                "pid-or-descriptors",
            )
            .with(&[&self.fit]),
        ]
    }
}
