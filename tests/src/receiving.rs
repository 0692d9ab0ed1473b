//! This process as an instance that receives connections, and acknowledges them when it likes.

use std::{
    net::SocketAddr,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use reuseport_daemon::{
    api::wire::{Acknowledged, Handed},
    sys::unix_socket,
};
use serde_json::{Value, json};

use crate::{
    control,
    held::instance_status,
    sockets::{Made, tcp},
    stage::{DEADLINE, SERVICE, Stage, any_v4},
    wait::until,
};

/// Registers this process under a label, with a listener that it does not accept from. The listener
/// is open for as long as what this returns.
///
/// # Errors
///
/// Where it is refused.
pub fn register_self(stage: &Stage, label: &str) -> Result<OwnedFd> {
    let address: SocketAddr = any_v4().parse()?;
    let listener = tcp(stage.world.server(), address, Made::Listening)?;
    let call = control::call("Register", &json!({"service": SERVICE, "label": label}));
    let socket = stage.home().socket();
    let answer = control::ask(&socket, &call, &[listener.as_fd()])?.context("an answer")?;
    ensure!(answer["parameters"]["label"] == label, "{answer}");
    Ok(listener)
}

/// Waits until an instance has that many receivers.
///
/// # Errors
///
/// Where it does not get them.
pub fn until_receivers(stage: &Stage, label: &str, count: u64) -> Result<()> {
    until(&format!("{label} has {count} receivers"), || {
        let instance = instance_status(stage, SERVICE, label)?;
        Ok(instance.is_some_and(|it| it.receivers == count))
    })
}

/// A `Receive` call of this process.
#[derive(Debug)]
pub struct Receiving {
    stream: UnixStream,
    socket: PathBuf,
    begun: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

impl Receiving {
    /// Begins to receive.
    ///
    /// # Errors
    ///
    /// Where the daemon cannot be reached.
    pub fn start(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket).context("connect")?;
        stream.set_read_timeout(Some(DEADLINE))?;
        let parameters = json!({"service": SERVICE});
        let call = control::message(&json!({
            "method": "io.reuseportd.Receive", "parameters": parameters, "more": true
        }));
        let sent = unix_socket::send(&stream, &call, &[])?;
        ensure!(sent == call.len(), "half a call");
        Ok(Self {
            stream,
            socket: socket.to_owned(),
            begun: Vec::new(),
            descriptors: Vec::new(),
        })
    }

    /// The next connection, which is not acknowledged yet.
    ///
    /// # Errors
    ///
    /// Where none comes.
    pub fn take_one(&mut self) -> Result<(Handed, OwnedFd)> {
        let reply = self.reply()?.context("the call has ended")?;
        ensure!(reply["continues"] == true, "{reply}");
        ensure!(self.descriptors.len() == 1, "{reply} without a connection");
        let connection = self.descriptors.pop().context("a connection")?;
        Ok((
            serde_json::from_value(reply["parameters"].clone())?,
            connection,
        ))
    }

    /// That many of them.
    ///
    /// # Errors
    ///
    /// Where not so many come.
    pub fn take(&mut self, count: usize) -> Result<Vec<(Handed, OwnedFd)>> {
        (0..count).map(|_| self.take_one()).collect()
    }

    /// The error that the call ends with; none where the connection just ends.
    ///
    /// # Errors
    ///
    /// Where it does not end.
    pub fn end(mut self) -> Result<Option<Value>> {
        let reply = self.reply()?;
        ensure!(
            reply.as_ref().is_none_or(|it| it["error"].is_string()),
            "{reply:?}"
        );
        Ok(reply)
    }

    /// Says that a connection has been received. Whether it is this process's then.
    ///
    /// # Errors
    ///
    /// Where the daemon does not tell.
    pub fn acknowledge(&self, id: u64) -> Result<bool> {
        acknowledge(&self.socket, id)
    }

    fn reply(&mut self) -> Result<Option<Value>> {
        loop {
            if let Some(end) = self.begun.iter().position(|byte| *byte == 0) {
                let reply = serde_json::from_slice(&self.begun[..end])?;
                self.begun.drain(..=end);
                return Ok(Some(reply));
            }
            let mut buffer = [0; 4096];
            let received = unix_socket::receive(&self.stream, &mut buffer)?;
            if received.bytes == 0 {
                return Ok(None);
            }
            self.begun.extend_from_slice(&buffer[..received.bytes]);
            self.descriptors.extend(received.fds);
        }
    }
}

/// Says over a connection of its own that a connection has been received.
///
/// # Errors
///
/// Where the daemon does not tell.
pub fn acknowledge(socket: &Path, id: u64) -> Result<bool> {
    let call = control::call("Acknowledge", &json!({"service": SERVICE, "id": id}));
    let answer = control::ask(socket, &call, &[])?.context("an answer")?;
    let answer: Acknowledged = serde_json::from_value(answer["parameters"].clone())?;
    Ok(answer.yours)
}
