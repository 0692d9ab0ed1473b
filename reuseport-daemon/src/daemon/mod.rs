//! The daemon: one task, the driver, owns every change.
//!
//! ```text
//!   calls (Envelope) ────┐      decides         performs
//!                        ├──> driver ──> domain ──────────> maps, programs, processes
//!   events (exits,       │      ^                              │
//!   readings, readiness)─┘      └──── waits end as events ─────┘
//! ```
//!
//! Whatever may take long (a walk of `/proc`, a socket dump, a grace period) runs beside the driver
//! and comes back as an event. Everything else is done in place: system calls of microseconds, and
//! the loading of a service's programs when it is added.

mod attachment;
mod beside;
mod calls;
mod closed;
mod config;
mod configured;
mod counters;
mod doctor;
mod driver;
mod event;
mod failure;
mod handoff;
mod inspect;
mod journal;
mod logging;
mod managed;
mod migrate_req;
mod migration_run;
mod observe;
mod overview;
mod parking;
mod probe;
mod progress;
mod recovery;
mod renewal;
mod run;
mod session_wait;
mod sessions;
mod settings;
mod status;
mod task;
mod units;
mod wake;
mod watch;
mod watchdog;

pub use config::{Config, ConfigError, Configured};
pub use doctor::examine_machine;
pub use migrate_req::MigrateReq;
pub use run::{Options, run};
