//! Users by name and number.

use nix::{errno::Errno, unistd};
use thiserror::Error;

use crate::domain::Uid;

/// A user that cannot be found.
#[derive(Debug, Error)]
pub enum UserError {
    /// Neither a number nor a name in the user database.
    #[error("there is no user {0:?}")]
    Unknown(String),
    /// The user database did not answer.
    #[error("user {name:?} cannot be looked up")]
    Lookup {
        /// What was asked for.
        name: String,
        /// Why there is no answer.
        #[source]
        source: Errno,
    },
}

/// The user that `text` names: a uid, which need not be in the user database, or a login name.
///
/// # Errors
///
/// When there is no such user, or the database cannot be read.
pub fn resolve(text: &str) -> Result<Uid, UserError> {
    if let Ok(uid) = text.parse() {
        // The kernel reads (uid_t)-1 as "no user".
        if uid != u32::MAX {
            return Ok(Uid(uid));
        }
    }
    match unistd::User::from_name(text) {
        Ok(Some(user)) => Ok(Uid(user.uid.as_raw())),
        Ok(None) => Err(UserError::Unknown(text.to_owned())),
        Err(source) => Err(UserError::Lookup {
            name: text.to_owned(),
            source,
        }),
    }
}

/// The login name of `uid`, where the user database has one and can be read.
#[must_use]
pub fn name_of(uid: Uid) -> Option<String> {
    let user = unistd::User::from_uid(unistd::Uid::from_raw(uid.0)).ok()??;
    Some(user.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_goes_by_name_and_by_number() {
        assert_eq!(resolve("root").expect("root"), Uid(0));
        assert_eq!(resolve("0").expect("0"), Uid(0));
        assert_eq!(resolve("4000000000").expect("no entry"), Uid(4_000_000_000));
        assert_eq!(name_of(Uid(0)).as_deref(), Some("root"));
        assert_eq!(name_of(Uid(4_000_000_000)), None);
    }

    #[test]
    fn what_is_no_user_is_said_so() {
        for text in ["", "no such user", "-1", "4294967295", "4294967296"] {
            assert!(
                matches!(resolve(text), Err(UserError::Unknown(_))),
                "{text}"
            );
        }
    }
}
