//! What the scenarios share: a world with a daemon, servers and a load in it. The parts are
//! `reuseport_daemon::lab`'s, which the demo is made of too.

pub mod bench;
pub mod cells;
pub mod control;
pub mod ctl;
pub mod haproxy;
pub mod held;
pub mod holdings;
pub mod kill_points;
pub mod machine;
pub mod nginx;
pub mod outcomes;
pub mod people;
pub mod receiving;
pub mod scarce;
pub mod sockets;
pub mod stage;
pub mod steered;
pub mod traces;
pub mod unit;
pub mod usage;
pub mod wait;
pub mod waiting;
pub mod waiting_clients;
