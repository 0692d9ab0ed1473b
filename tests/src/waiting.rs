//! Clients that have asked once and wait to be answered, each in an accept queue.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::TcpStream,
    os::fd::OwnedFd,
};

use anyhow::{Context, Result, ensure};
use reuseport_daemon::lab::wire::{
    ANSWER_LEN, After, Answer, REQUEST_LEN, Request, RequestId, Tag,
};

use crate::{
    held::until_queued,
    sockets,
    stage::{DEADLINE, PORT, SERVICE, Stage},
};

/// Clients of the service, with an id each.
#[derive(Debug)]
pub struct Waiting(Vec<(RequestId, TcpStream)>);

impl Waiting {
    /// Connects that many, and waits until they are in the queue of `label`, which accepts nothing.
    ///
    /// # Errors
    ///
    /// Where they do not get there.
    pub fn for_instance(stage: &Stage, label: &str, count: u32) -> Result<Self> {
        Self::beside(stage, label, 0, count)
    }

    /// The same, beside `others` that are there already.
    ///
    /// # Errors
    ///
    /// As [`Waiting::for_instance`].
    pub fn beside(stage: &Stage, label: &str, others: u32, count: u32) -> Result<Self> {
        let mut clients = Vec::new();
        for number in 0..count {
            let id = RequestId(number.into());
            let mut client = connect(stage)?;
            let after = After::Close;
            client.write_all(&Request { id, after }.encode())?;
            clients.push((id, client));
        }
        until_queued(stage, SERVICE, label, others + count)?;
        Ok(Self(clients))
    }

    /// Every one must be answered once and no more; tells how many by whom.
    ///
    /// # Errors
    ///
    /// Where one is not.
    pub fn answered(self) -> Result<BTreeMap<Tag, u32>> {
        let mut by_label = BTreeMap::new();
        for (id, mut client) in self.0 {
            let mut answer = Vec::new();
            client
                .read_to_end(&mut answer)
                .with_context(|| format!("client {id}"))?;
            let answer = <[u8; ANSWER_LEN]>::try_from(answer);
            let answer = answer.ok().and_then(|it| Answer::decode(&it));
            let answer = answer.with_context(|| format!("client {id} has no answer"))?;
            ensure!(
                answer.id == id,
                "client {id} has the answer to {}",
                answer.id
            );
            *by_label.entry(answer.tag).or_default() += 1;
        }
        Ok(by_label)
    }
}

/// A client that has said nothing yet.
///
/// # Errors
///
/// Where it cannot connect.
pub fn connect(stage: &Stage) -> Result<TcpStream> {
    let client = sockets::connected(stage.world.client(), stage.world.v4(PORT))?;
    let client = TcpStream::from(client);
    client.set_read_timeout(Some(DEADLINE))?;
    Ok(client)
}

/// Answers the request of one of these clients, as a server with that label does.
///
/// # Errors
///
/// Where it has not asked.
pub fn answer(connection: OwnedFd, tag: Tag) -> Result<()> {
    let mut connection = TcpStream::from(connection);
    connection.set_read_timeout(Some(DEADLINE))?;
    let mut request = [0; REQUEST_LEN];
    connection.read_exact(&mut request)?;
    let Request { id, .. } = Request::decode(&request).context("a request")?;
    Ok(connection.write_all(&Answer { id, tag }.encode())?)
}
