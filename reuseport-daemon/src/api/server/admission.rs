//! How many connections there may be at once.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use thiserror::Error;

use super::Limits;

/// Counts the connections of each user.
#[derive(Debug)]
pub(super) struct Admission {
    per_user: usize,
    users: Arc<Mutex<HashMap<u32, usize>>>,
}

/// A user has as many connections as one may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("uid {uid} has {limit} connections already")]
pub(super) struct Refused {
    uid: u32,
    limit: usize,
}

/// A place that is given back when it is dropped.
#[derive(Debug)]
pub(super) struct Ticket {
    uid: u32,
    users: Arc<Mutex<HashMap<u32, usize>>>,
}

impl Admission {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            per_user: limits.connections_per_user,
            users: Arc::default(),
        }
    }

    /// A place for one more connection of `uid`.
    pub(super) fn admit(&self, uid: u32) -> Result<Ticket, Refused> {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        let count = users.entry(uid).or_default();
        if uid != 0 && *count >= self.per_user {
            let limit = self.per_user;
            return Err(Refused { uid, limit });
        }
        *count += 1;
        Ok(Ticket {
            uid,
            users: Arc::clone(&self.users),
        })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = users.get_mut(&self.uid) {
            *count -= 1;
            if *count == 0 {
                users.remove(&self.uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_cannot_take_every_place() {
        let admission = Admission::new(Limits {
            connections_per_user: 2,
            ..Limits::default()
        });
        let first = admission.admit(7).expect("first");
        let _second = admission.admit(7).expect("second");
        assert_eq!(
            admission.admit(7).expect_err("third"),
            Refused { uid: 7, limit: 2 }
        );
        let _other = admission.admit(8).expect("another user");
        let _root: Vec<_> = (0..5).map(|_| admission.admit(0).expect("root")).collect();
        drop(first);
        admission.admit(7).expect("a place was given back");
    }
}
