//! A world in miniature: network namespaces of their own, a link with delay and loss, servers that
//! know nothing of reuseportd, and clients that account for every connection. The demo shows it and
//! the tests rely on it.

pub mod daemon;
pub mod fixture;
pub mod latency;
pub mod ledger;
pub mod link;
pub mod load;
pub mod process;
pub mod server;
pub mod service_manager;
pub mod sysctl;
pub mod wire;
pub mod world;
