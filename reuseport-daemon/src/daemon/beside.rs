//! Work that takes long, done for calls beside the driver.

use std::sync::Arc;

use tokio::{sync::Semaphore, task};

/// How many such works are done at a time. Callers may ask for more than the machine should do at
/// once; what a migration waits for is not among them, and never waits for them.
const AT_A_TIME: usize = 8;

/// A place for work that walks `/proc`, dumps sockets or loads programs.
#[derive(Clone, Debug)]
pub(super) struct Beside(Arc<Semaphore>);

impl Beside {
    /// A place with nothing to do.
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(AT_A_TIME)))
    }

    /// Does `work` when its turn comes.
    pub(super) fn run(&self, work: impl FnOnce() + Send + 'static) {
        let turns = Arc::clone(&self.0);
        tokio::spawn(async move {
            // An error would mean that the semaphore is closed, which nobody does.
            let _turn = turns.acquire_owned().await;
            // An error is a panic in the work; whoever waits for its answer is told by its absence.
            let _ = task::spawn_blocking(work).await;
        });
    }
}
