//! The client's side of a handoff: a process that receives connections.

use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    client::{Client, ClientError, Replies},
    error_reply::{SHORT, TOO_MANY_CONNECTIONS},
    wire::{Acknowledge, Acknowledged, Failure, Handed, ServiceRef},
};

/// Receives connections of a service, each of them acknowledged, for as long as the daemon lives.
#[derive(Debug)]
pub struct Receiver {
    socket: PathBuf,
    service: String,
    receiving: Replies<Client, Handed>,
    /// The other connection is taken by its call.
    acknowledging: Option<Client>,
}

impl Receiver {
    /// Begins to receive for the instance that this process is, or descends from.
    ///
    /// # Errors
    ///
    /// As [`Client::connect`] and [`Client::stream`].
    pub async fn start(socket: &Path, service: &str) -> Result<Self, ClientError> {
        let service = service.to_owned();
        let parameters = ServiceRef { service };
        let client = Client::connect(socket).await?;
        Ok(Self {
            socket: socket.to_owned(),
            receiving: client.into_stream("Receive", &parameters).await?,
            service: parameters.service,
            acknowledging: None,
        })
    }

    /// The next connection, connected, blocking and close-on-exec. It is this process's alone.
    ///
    /// # Errors
    ///
    /// As [`Client::call`]: the daemon has ended, or the service has been removed.
    pub async fn next(&mut self) -> Result<(Handed, OwnedFd), ClientError> {
        loop {
            let next = self.receiving.next_with_descriptors().await?;
            let (handed, descriptors) = next.ok_or(ClientError::NoResult)?;
            let connection = descriptors.into_iter().next();
            let connection = connection.ok_or(ClientError::NoResult)?;
            if self.acknowledge(handed.id).await {
                return Ok((handed, connection));
            }
        }
    }

    /// Whether a connection is this process's. A daemon that cannot be asked, or that does not know
    /// the service any more, has given it to nobody else.
    async fn acknowledge(&mut self, id: u64) -> bool {
        /// How long to wait for a daemon that has nothing left to hear this with.
        const AGAIN: Duration = Duration::from_millis(50);
        let mut lost = false;
        loop {
            match self.ask(id).await {
                Ok(answer) => return answer.yours,
                // It lives, and holds the connection until it is told.
                Err(ClientError::Failure(failure)) if is_turned_away(&failure) => {
                    tokio::time::sleep(AGAIN).await;
                }
                // The second time over a new connection.
                Err(_) if !lost => lost = true,
                Err(_) => return true,
            }
        }
    }

    async fn ask(&mut self, id: u64) -> Result<Acknowledged, ClientError> {
        let mut client = match self.acknowledging.take() {
            Some(client) => client,
            None => Client::connect(&self.socket).await?,
        };
        let service = self.service.clone();
        let parameters = Acknowledge { service, id };
        let answer = client.call("Acknowledge", &parameters, Vec::new()).await?;
        self.acknowledging = Some(client);
        Ok(answer)
    }
}

/// Whether the daemon has answered before it was asked anything.
fn is_turned_away(failure: &Failure) -> bool {
    [SHORT, TOO_MANY_CONNECTIONS].contains(&failure.reason().reason.as_str())
}
