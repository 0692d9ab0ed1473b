//! A thread that receives the connections that a daemon hands over, and leaves them to a worker.

use std::{path::Path, thread, time::Duration};

use rustix::io::ioctl_fionbio;
use tokio::runtime;

use super::{
    ServerError,
    inbox::{Inbox, Message},
    setup,
};
use crate::api::{client::ClientError, receiver::Receiver};

/// How long to wait for a daemon that is not there to come back.
const AGAIN: Duration = Duration::from_millis(20);

/// Receives until the process ends.
pub(super) fn start(service: &str, control: &Path, inbox: Inbox) -> Result<(), ServerError> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(setup("start the receiver's runtime"))?;
    let (service, control) = (service.to_owned(), control.to_owned());
    thread::Builder::new()
        .name("receiver".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                // However it ends, another daemon will come.
                while receive(&service, &control, &inbox).await.is_err() {
                    tokio::time::sleep(AGAIN).await;
                }
            });
        })
        .map_err(setup("start a receiver"))?;
    Ok(())
}

async fn receive(service: &str, control: &Path, inbox: &Inbox) -> Result<(), ClientError> {
    let mut receiver = Receiver::start(control, service).await?;
    loop {
        let (_, connection) = receiver.next().await?;
        // It fails for no socket.
        let _ = ioctl_fionbio(&connection, true);
        inbox.send(Message::Adopt(connection));
    }
}
