//! Every decision, and nothing else: services, generations, slots, steering tables, migration and
//! drain. No I/O, no clock, no tokio, no aya, no unsafe.

mod address;
mod names;
mod refusal;

pub use address::{Address, AddressError};
pub use names::{Generation, Label, NameError, ProcessId, ServiceName, Slot, SocketCookie, Uid};
pub use refusal::{ListenerFault, Refusal};
