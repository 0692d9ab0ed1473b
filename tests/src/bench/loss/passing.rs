//! Socket activation: a listener that outlives its servers, and that whoever asks is passed.

use std::{
    io,
    os::{fd::AsFd, unix::net::UnixListener},
    path::PathBuf,
    thread,
};

use anyhow::Result;
use reuseport_daemon::{
    domain::Address,
    sys::{netns::Netns, unix_socket},
};
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

const BACKLOG: i32 = 4096;

/// Holds the listener, and answers on a Unix socket with a duplicate of it. Its thread ends with the
/// process: nobody else ends its `accept`.
pub(super) struct Passer {
    directory: TempDir,
}

impl Passer {
    pub(super) fn listen(netns: &Netns, address: &Address) -> Result<Self> {
        let address = address.socket;
        let listener = netns.enter(|| -> io::Result<Socket> {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
            socket.set_reuse_address(true)?;
            socket.bind(&address.into())?;
            socket.listen(BACKLOG)?;
            Ok(socket)
        })??;
        let directory = tempfile::Builder::new().prefix("passer-lab-").tempdir()?;
        let passer = Self { directory };
        let asked = UnixListener::bind(passer.socket())?;
        thread::Builder::new()
            .name("passer".to_owned())
            .spawn(move || {
                for stream in asked.incoming().map_while(Result::ok) {
                    // A server that has gone needs no listener.
                    let _ = unix_socket::send(&stream, b"x", &[listener.as_fd()]);
                }
            })?;
        Ok(passer)
    }

    /// Where to ask.
    pub(super) fn socket(&self) -> PathBuf {
        self.directory.path().join("listener")
    }
}
