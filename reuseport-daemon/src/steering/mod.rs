//! Programs and maps in the kernel: what steers, what counts, and what the daemon knows, pinned so
//! that it lives as long as the sockets do and not as long as the daemon.
//!
//! ```text
//! <bpffs>/reuseportd/<service>/service      ServiceRecord
//!                             /instances    generation -> InstanceRecord
//!                             /migration    MigrationRecord
//!                             /<address>/group      GroupRecord
//!                                       /slots      slot -> SlotRecord
//!                                       /sockets    slot -> listener
//!                                       /steering   the two copies of the steering table
//!                                       /active     which copy the program reads
//!                                       /outcomes   runs by outcome and cause
//!                                       /selected   runs by slot
//!                                       /select or /select_or_migrate   the program
//! ```
//!
//! A service's directory is made aside, as `@<service>`, and renamed into place: what stands under
//! a service's name is whole. There is no twin of this in memory for tests: the decisions are the
//! domain's, which needs none, and the rest is the kernel's to judge.

mod error;
mod group;
mod maps;
mod object;
mod pins;
mod program;
mod records;
mod renew;
mod runs;
mod service;
mod trial;

pub use error::SteeringError;
pub use group::GroupMaps;
pub use object::{Loader, LogLevel};
pub use pins::Pins;
pub use program::{Edition, ProgramKind};
pub use records::RecordError;
pub use runs::Runs;
pub use service::ServiceMaps;
pub use trial::Trial;
