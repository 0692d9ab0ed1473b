//! Units of systemd as instances: found by their control groups when they are named, and, where a
//! service has a pattern of them, as soon as they listen.
//!
//! ```text
//!   a group appears, or gets a process ──> watch ──> driver ──> look ──> registered
//!   a process ends, a migration ends ──────^            ^         │
//!                                                       └─ pause ─┘ does not listen yet
//! ```

mod attend;
mod expected;
mod look;
mod watch;

pub(super) use self::{expected::Units, look::by_name};
