//! Socket activation: a listener that outlives its servers, and that whoever asks is passed.

use std::{
    io,
    os::{fd::AsFd, unix::net::UnixListener},
    path::PathBuf,
    sync::Arc,
    thread::{self, JoinHandle},
};

use anyhow::Result;
use reuseport_daemon::{
    domain::Address,
    sys::{netns::Netns, unix_socket},
};
use rustix::net::{Shutdown, shutdown};
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

const BACKLOG: i32 = 4096;

const SOCKET: &str = "listener";

/// Holds the listener, and answers on a Unix socket with a duplicate of it.
pub(super) struct Passer {
    directory: TempDir,
    asked: Arc<UnixListener>,
    answers: Option<JoinHandle<()>>,
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
        let asked = Arc::new(UnixListener::bind(directory.path().join(SOCKET))?);
        let questions = Arc::clone(&asked);
        let answers = thread::Builder::new()
            .name("passer".to_owned())
            .spawn(move || {
                for stream in questions.incoming().map_while(Result::ok) {
                    // A server that has gone needs no listener.
                    let _ = unix_socket::send(&stream, b"x", &[listener.as_fd()]);
                }
            })?;
        Ok(Self {
            directory,
            asked,
            answers: Some(answers),
        })
    }

    /// Where to ask.
    pub(super) fn socket(&self) -> PathBuf {
        self.directory.path().join(SOCKET)
    }
}

impl Drop for Passer {
    fn drop(&mut self) {
        // It ends the `accept` of the thread, which is then gone with the listener.
        if shutdown(&*self.asked, Shutdown::Both).is_ok()
            && let Some(answers) = self.answers.take()
        {
            let _ = answers.join();
        }
    }
}
