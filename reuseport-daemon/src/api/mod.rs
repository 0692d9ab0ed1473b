//! The control socket: Varlink over a Unix stream socket, wire types, server, client, who may do
//! what, and the exit codes that the outcomes map to. Nothing here decides or touches the kernel's
//! steering: a call becomes an [`Envelope`] in the driver's mailbox.

mod mailbox;
pub mod wire;

pub use mailbox::{Answer, Caller, Envelope, Replier};
