//! A server that takes over what its predecessor has not accepted: it listens, registers itself, and
//! receives connections when a service moves to it with `migrate --drain handoff`. It answers each
//! with its label.
//!
//! usage: receive SERVICE PORT LABEL

use std::{
    env,
    io::{Write, stdout},
    net::{Ipv4Addr, SocketAddr},
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use reuseport_daemon::api::{
    client::{Client, ClientError},
    receiver::Receiver,
    wire::{Register, Registered},
};
use socket2::{Domain, Socket, Type};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
};

/// How long to wait for a daemon that is not there to come back.
const AGAIN: Duration = Duration::from_millis(100);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut arguments = env::args().skip(1);
    let mut argument = || {
        arguments
            .next()
            .context("usage: receive SERVICE PORT LABEL")
    };
    let (service, port, label) = (argument()?, argument()?.parse()?, argument()?);
    let control = env::var_os("REUSEPORTD_SOCKET");
    let control = PathBuf::from(control.unwrap_or("/run/reuseportd/control".into()));

    let listener = listen(port)?;
    let passed = listener.as_fd().try_clone_to_owned()?;
    let registered = register(&control, &service, &label, passed).await?;
    writeln!(stdout(), "{} is {}", registered.label, registered.state)?;
    tokio::spawn(receive(control, service, label.clone()));
    loop {
        let (connection, _) = listener.accept().await?;
        tokio::spawn(answer(connection, label.clone()));
    }
}

fn listen(port: u16) -> Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into())?;
    socket.listen(4096)?;
    Ok(TcpListener::from_std(socket.into())?)
}

async fn register(
    control: &Path,
    service: &str,
    label: &str,
    listener: OwnedFd,
) -> Result<Registered, ClientError> {
    let parameters = Register {
        service: service.to_owned(),
        label: Some(label.to_owned()),
        ..Register::default()
    };
    let mut client = Client::connect(control).await?;
    client.call("Register", &parameters, vec![listener]).await
}

/// Receives for as long as this process lives, whatever becomes of the daemon.
async fn receive(control: PathBuf, service: String, label: String) {
    loop {
        if let Ok(mut receiver) = Receiver::start(&control, &service).await {
            while let Ok((_, connection)) = receiver.next().await {
                if let Ok(connection) = watched(connection) {
                    tokio::spawn(answer(connection, label.clone()));
                }
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// A connection that the runtime watches.
fn watched(connection: OwnedFd) -> std::io::Result<TcpStream> {
    let connection = std::net::TcpStream::from(connection);
    connection.set_nonblocking(true)?;
    TcpStream::from_std(connection)
}

async fn answer(mut connection: TcpStream, label: String) {
    // A client that has gone needs no answer.
    let _ = connection.write_all(format!("{label}\n").as_bytes()).await;
}
