//! The control socket: Varlink over a Unix stream socket, wire types, server, client, who may do
//! what, and the exit codes that the outcomes map to. Nothing here decides or touches the kernel's
//! steering: a call becomes an [`Envelope`] in the driver's mailbox.

pub mod client;
mod error_reply;
pub mod exit_code;
#[cfg(test)]
mod idl_tests;
mod line;
mod mailbox;
pub mod permission;
pub mod receiver;
pub mod server;
mod socket;
pub mod wire;

pub use mailbox::{Answer, Caller, Envelope, Feed, Replier, Told};
pub use permission::Scope;
pub use server::{BindError, Limits, Server, ServerError};
pub use socket::MAX_DESCRIPTORS;
