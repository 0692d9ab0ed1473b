//! A gate between connecting and asking, for tests that want connections which say nothing yet.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Holds clients back once they have connected, until it is opened; then it stays open.
#[derive(Debug, Default)]
pub struct Gate {
    state: Mutex<State>,
    opened: Condvar,
}

#[derive(Debug, Default)]
struct State {
    open: bool,
    waiting: usize,
}

impl Gate {
    /// Lets everybody through, from now on.
    pub fn open(&self) {
        self.state().open = true;
        self.opened.notify_all();
    }

    /// How many clients have connected and wait to ask.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.state().waiting
    }

    /// Waits until it is open.
    pub(super) fn pass(&self) {
        let mut state = self.state();
        state.waiting += 1;
        while !state.open {
            state = self
                .opened
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting -= 1;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is locked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
