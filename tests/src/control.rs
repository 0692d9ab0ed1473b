//! The control socket without a client in between: any bytes, any descriptors.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::Shutdown,
    os::{fd::BorrowedFd, unix::net::UnixStream},
    path::Path,
};

use anyhow::{Context, Result, bail};
use reuseport_daemon::sys::unix_socket;
use serde_json::{Value, json};

use crate::stage::DEADLINE;

/// A call of a method of `io.reuseportd`, as it travels.
#[must_use]
pub fn call(member: &str, parameters: &Value) -> Vec<u8> {
    message(&json!({"method": format!("io.reuseportd.{member}"), "parameters": parameters}))
}

/// A message, as it travels.
#[must_use]
pub fn message(value: &Value) -> Vec<u8> {
    let mut bytes = value.to_string().into_bytes();
    bytes.push(0);
    bytes
}

/// Sends bytes, with descriptors on the first of them, and reads the last answer to the first call;
/// none where the daemon ends the connection instead.
///
/// # Errors
///
/// Where it cannot be reached, is silent, or answers with something that is not JSON.
pub fn ask(socket: &Path, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<Option<Value>> {
    read_answer(&mut send(socket, bytes, fds)?)
}

/// Sends bytes and then nothing more, and reads what comes.
///
/// # Errors
///
/// As [`ask`].
pub fn break_off(socket: &Path, bytes: &[u8]) -> Result<Option<Value>> {
    let mut stream = send(socket, bytes, &[])?;
    stream.shutdown(Shutdown::Write)?;
    read_answer(&mut stream)
}

fn send(socket: &Path, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<UnixStream> {
    let mut stream = UnixStream::connect(socket).context("connect")?;
    stream.set_read_timeout(Some(DEADLINE))?;
    let sent = unix_socket::send(&stream, bytes, fds);
    match sent.and_then(|sent| stream.write_all(&bytes[sent..])) {
        // A daemon that has had enough has answered before it closed.
        Err(error) if is_hangup(&error) => {}
        written => written.context("send")?,
    }
    Ok(stream)
}

fn read_answer(stream: &mut UnixStream) -> Result<Option<Value>> {
    loop {
        match read_message(stream)? {
            Some(progress) if progress["continues"] == true => {}
            last => return Ok(last),
        }
    }
}

/// Reads the next message; none where the daemon ends the connection instead.
///
/// # Errors
///
/// As [`ask`].
pub fn read_message(stream: &mut UnixStream) -> Result<Option<Value>> {
    let mut answer = Vec::new();
    let mut byte = [0];
    loop {
        match stream.read(&mut byte) {
            Ok(1) if byte == [0] => return Ok(Some(serde_json::from_slice(&answer)?)),
            Ok(1) => answer.push(byte[0]),
            Ok(_) if answer.is_empty() => return Ok(None),
            Err(error) if answer.is_empty() && is_hangup(&error) => return Ok(None),
            Ok(_) => bail!("half an answer: {}", String::from_utf8_lossy(&answer)),
            Err(error) => return Err(error).context("read the answer"),
        }
    }
}

fn is_hangup(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset
    )
}
