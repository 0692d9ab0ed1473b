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
    /// How many all users but root may have together. One person can be many users
    /// (subuid(5)), so that the limit for each alone would not keep a place for root.
    shared: usize,
    users: Arc<Mutex<HashMap<u32, usize>>>,
}

/// There is no place for one more connection of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum Refused {
    /// That user has as many as one may have.
    #[error("uid {uid} has {limit} connections already")]
    User {
        /// The user.
        uid: u32,
        /// How many one may have.
        limit: usize,
    },
    /// All users together have.
    #[error("users other than root have {limit} connections already")]
    Everybody {
        /// How many they may have.
        limit: usize,
    },
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
            shared: limits.connections - limits.connections / 4,
            users: Arc::default(),
        }
    }

    /// A place for one more connection of `uid`.
    pub(super) fn admit(&self, uid: u32) -> Result<Ticket, Refused> {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        if uid != 0 {
            let (ours, limit) = (users.get(&uid).copied().unwrap_or(0), self.per_user);
            if ours >= limit {
                return Err(Refused::User { uid, limit });
            }
            let all: usize = users.iter().filter(|it| *it.0 != 0).map(|it| it.1).sum();
            let limit = self.shared;
            if all >= limit {
                return Err(Refused::Everybody { limit });
            }
        }
        *users.entry(uid).or_default() += 1;
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
            Refused::User { uid: 7, limit: 2 }
        );
        let _other = admission.admit(8).expect("another user");
        let _root: Vec<_> = (0..5).map(|_| admission.admit(0).expect("root")).collect();
        drop(first);
        admission.admit(7).expect("a place was given back");
    }

    #[test]
    fn many_users_cannot_take_every_place() {
        let admission = Admission::new(Limits {
            connections: 8,
            connections_per_user: 2,
            ..Limits::default()
        });
        let first: Vec<_> = (1..=3)
            .flat_map(|uid| [admission.admit(uid), admission.admit(uid)])
            .collect::<Result<_, _>>()
            .expect("three quarters");
        assert_eq!(
            admission.admit(4).expect_err("the seventh"),
            Refused::Everybody { limit: 6 }
        );
        let _root = admission.admit(0).expect("root");
        drop(first);
        admission.admit(4).expect("places were given back");
        let users = admission.users.lock().expect("the counts");
        assert!(users.keys().eq([&0]), "nobody is counted who has none");
    }
}
