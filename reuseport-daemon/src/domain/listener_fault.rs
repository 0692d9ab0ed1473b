//! What can be wrong with a socket that is to be a service's listener.

use thiserror::Error;

use super::{Address, Label, Uid};

/// What makes a descriptor unfit to be a service's listener.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ListenerFault {
    /// A file, pipe, or the like.
    #[error("the descriptor is not a socket")]
    NotASocket,
    /// UDP, unix, or another protocol.
    #[error("it is a {0} socket, not TCP")]
    NotTcp(&'static str),
    /// Connected, or only bound.
    #[error("it does not listen")]
    NotListening,
    /// It is alone on its port.
    #[error("SO_REUSEPORT is not set")]
    NoReuseport,
    /// `SO_REUSEPORT` came after `bind`, and nobody else has joined since.
    #[error("it is in no reuseport group")]
    NoGroup,
    /// It listens elsewhere.
    #[error("it listens on {0}")]
    OtherAddress(Address),
    /// It is not in the service's network namespace.
    #[error("it is in another network namespace")]
    OtherNetns,
    /// The kernel groups by owner.
    #[error("it belongs to uid {found}, the service to uid {expected}")]
    OtherOwner {
        /// Who owns the socket.
        found: Uid,
        /// Who owns the service.
        expected: Uid,
    },
    /// Another instance brought the same socket.
    #[error("instance {0} has registered the same socket")]
    Shared(Label),
}

impl ListenerFault {
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::NotASocket => "not-a-socket",
            Self::NotTcp(_) => "not-tcp",
            Self::NotListening => "not-listening",
            Self::NoReuseport => "no-reuseport",
            Self::NoGroup => "no-group",
            Self::OtherAddress(_) => "other-address",
            Self::OtherNetns => "other-netns",
            Self::OtherOwner { .. } => "other-owner",
            Self::Shared(_) => "shared-listener",
        }
    }

    pub(super) fn hint(&self) -> Option<String> {
        match self {
            Self::NoReuseport => {
                Some("the server must set SO_REUSEPORT before it binds".to_owned())
            }
            Self::NoGroup => Some(
                "SO_REUSEPORT was set after bind; the group appears when a second socket listens"
                    .to_owned(),
            ),
            Self::OtherOwner { found, .. } => Some(format!(
                "the kernel keeps the groups of different users apart; add the service with \
                 --user {found}"
            )),
            Self::OtherNetns => Some("add the service with --netns PATH".to_owned()),
            Self::NotASocket
            | Self::NotTcp(_)
            | Self::NotListening
            | Self::OtherAddress(_)
            | Self::Shared(_) => None,
        }
    }
}
