//! What the kernel is asked directly: processes, sockets, namespaces, counters. Each file wraps one
//! thing, with owned descriptors and errors that name the call.
//!
//! This is the only place with `unsafe` outside the eBPF crate and the `Pod` marks of
//! `reuseport-common`. The workspace denies it; what needs it opts in by itself, with its reason,
//! where none of rustix, socket2 and nix has the call.

pub mod accept;
pub mod allocator;
pub mod bpffs;
pub mod capabilities;
pub mod cgroup;
pub mod clock;
pub mod confinement;
pub mod environment;
pub mod grace;
pub mod inherit;
pub mod inotify;
pub mod interface;
pub mod limits;
pub mod listen_options;
pub mod listener_settings;
pub mod migrate_req;
pub mod netns;
pub mod netstat;
pub mod packets;
pub mod parking;
pub mod passed;
pub mod process;
pub mod raw_program;
pub mod readiness;
pub mod service_manager;
pub mod signal;
pub mod sock_diag;
pub mod socket;
pub mod sysctl;
pub mod tun;
pub mod unix_socket;
pub mod users;
