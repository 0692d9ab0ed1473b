//! What travels over the control socket: parameters and replies of the interface `io.reuseportd`.
//! The interface's text is in `io.reuseportd.varlink`, and a test holds the two together.
//!
//! Longer than other files, since it is one list: a type for every message, and nothing else.

use serde::{Deserialize, Serialize};

/// A call, as it was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// `AddService`
    AddService(AddService),
    /// `RemoveService`
    RemoveService(ServiceRef),
    /// `Register`
    Register(Register),
    /// `Migrate`, which streams its progress
    Migrate(Migrate),
    /// `Rollback`
    Rollback(ServiceRef),
    /// `Release`
    Release(Release),
    /// `Receive`, which streams connections
    Receive(ServiceRef),
    /// `Acknowledge`
    Acknowledge(Acknowledge),
    /// `Status`
    Status(ServiceFilter),
    /// `MigrateReq`
    MigrateReq(MigrateReq),
    /// `Doctor`
    Doctor(ServiceFilter),
}

/// Parameters of `AddService`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddService {
    /// The service's name.
    pub name: String,
    /// Where it listens, in the words of [`crate::domain::Address`].
    pub listen: Vec<String>,
    /// Name or number of the user that owns its sockets; the caller's where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Path of its network namespace; the daemon's where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<String>,
    /// How many listeners a group can hold, old and new together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots: Option<u32>,
    /// Whether connections wait while nobody serves.
    #[serde(default)]
    pub park: bool,
    /// For how long they wait, in milliseconds; it goes with `park`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub park_timeout_ms: Option<u64>,
    /// Units that become instances by themselves, as soon as they listen: a name with `*` and `?`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instances: Option<String>,
}

/// Parameters that only name a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceRef {
    /// The service.
    pub service: String,
}

/// Parameters that may name a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceFilter {
    /// The service, or every one that the caller may see.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
}

/// Parameters of `Register`. The listeners are found in the process `pid`, in one of those of the
/// unit `unit`, or come as file descriptors with the call; then the instance's process is the caller's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Register {
    /// The service.
    pub service: String,
    /// The process whose listeners are meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// The unit of systemd's whose listeners are meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// What to call the instance; after its unit, or else `g` and its generation, where it is left
    /// out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

/// Parameters of `Migrate`: one of `to`, `to_pid` and `to_unit`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Migrate {
    /// The service.
    pub service: String,
    /// The label of a registered instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// A process to register and to move to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_pid: Option<u32>,
    /// A unit to register one of whose processes, and to move to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_unit: Option<String>,
    /// What to call the instance of `to_pid` or `to_unit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// How the old queues are emptied, in the words of [`crate::domain::Drain`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<String>,
    /// What happens to the old listeners: `keep`, `shutdown`, or `signal:NAME`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retire: Option<String>,
    /// How long to wait for the old queues, in milliseconds: 30,000 where it is left out, a day at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_timeout_ms: Option<u64>,
    /// How long to wait, when the service has moved, until no session is left on the instances that
    /// it has moved away from, in milliseconds, a year at most. Without it there is no such wait; in
    /// a dry run there is none either.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_sessions_ms: Option<u64>,
    /// Check everything and change nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// Settings that may differ between old and new listeners, in the words of
    /// [`crate::domain::Setting`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_mismatch: Option<Vec<String>>,
}

/// Parameters of `Release`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// The service.
    pub service: String,
    /// The instance to forget.
    pub label: String,
}

/// Parameters of `Acknowledge`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Acknowledge {
    /// The service.
    pub service: String,
    /// [`Handed::id`]
    pub id: u64,
}

/// Parameters of `MigrateReq`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MigrateReq {
    /// What to set; only shown where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<bool>,
    /// Path of the network namespace; the daemon's where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<String>,
}

/// A reply, before it is written. Each serialises to its own fields only.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Reply {
    /// Of `AddService`, `RemoveService`, `Rollback` and `Release`.
    Changed(Changed),
    /// Of `Register`.
    Registered(Registered),
    /// Of `Migrate`, one for every phase and one for the end.
    Migration(Box<MigrationReply>),
    /// Of `Receive`, one for every connection.
    Handed(Handed),
    /// Of `Acknowledge`.
    Acknowledged(Acknowledged),
    /// Of `Status`.
    Status(Status),
    /// Of `MigrateReq`.
    MigrateReq(MigrateReqState),
    /// Of `Doctor`.
    Doctor(Doctor),
}

/// Whether the call changed anything: doing what is done already is success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// False where things were that way already.
    pub changed: bool,
    /// What was done, in a sentence.
    pub message: String,
}

/// Reply of `Register`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// False where the instance was registered with the same listeners already.
    pub changed: bool,
    /// The instance.
    pub label: String,
    /// Its number.
    pub generation: u32,
    /// `serving` or `standby`.
    pub state: String,
    /// How many listeners it has.
    pub listeners: u32,
}

/// A reply of `Migrate`: exactly one of the fields is there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigrationReply {
    /// A phase has begun, or has come further.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// The end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<MigrationResult>,
}

impl From<Progress> for Reply {
    fn from(progress: Progress) -> Self {
        Self::Migration(Box::new(MigrationReply {
            progress: Some(progress),
            result: None,
        }))
    }
}

impl From<MigrationResult> for Reply {
    fn from(result: MigrationResult) -> Self {
        Self::Migration(Box::new(MigrationReply {
            progress: None,
            result: Some(result),
        }))
    }
}

/// How far a migration has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// `staged`, `switched`, `draining`, `retiring`; after the migration, `sessions`.
    pub phase: String,
    /// Since the call, in milliseconds.
    pub elapsed_ms: u64,
    /// Half-open handshakes of the old listeners that are still waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handshakes: Option<u64>,
    /// Connections in the old listeners' accept queues.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued: Option<u64>,
    /// Sessions of the instances that the service has moved away from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions: Option<u64>,
}

/// How a migration ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigrationResult {
    /// The service.
    pub service: String,
    /// Labels of the instances that served before.
    pub from: Vec<String>,
    /// Label of the instance that serves now.
    pub to: String,
    /// `done`, `unchanged` (it served already), `dry_run`, `rolled_back`, `timed_out`, or
    /// `sessions_left`: it has moved, and its old instances still had sessions at the end of the
    /// wait for them.
    pub outcome: String,
    /// Table writes and flips of all groups, in microseconds.
    pub switch_us: u64,
    /// From the switch to the end of the drain, in milliseconds.
    pub drain_ms: u64,
    /// Half-open handshakes that the old listeners had at the switch.
    pub handshakes_waited: u64,
    /// Connections that the old instances accepted after the switch: those half-open or queued
    /// there when the first reading was taken, less those at the last.
    pub accepted_while_draining: u64,
    /// Connections that the kernel moved between listeners meanwhile (`TCPMigrateReqSuccess`).
    pub moved_by_kernel: u64,
    /// Connections that the daemon handed to the new instance, and that it acknowledged.
    pub handed_off: u64,
    /// Connections that the daemon made to wake the new instance, and closed at once, on a kernel that
    /// leaves acceptors asleep when it moves connections to them.
    pub woken: u64,
    /// Handshakes and queued connections that the old listeners still had at the deadline, and
    /// connections that were handed to the new instance and not acknowledged by then.
    pub left_behind: u64,
    /// Sessions that the instances which the service has moved away from still had at the end of
    /// the wait for them; null where nobody waited.
    pub sessions_left: Option<u64>,
    /// What the network namespace counted meanwhile.
    pub counters: NetCounters,
    /// What the steering programs counted meanwhile, all groups together.
    pub outcomes: Outcomes,
    /// What differs between old and new listeners and was no reason to refuse, one sentence each.
    pub warnings: Vec<String>,
}

/// Counters of a network namespace (`TcpExt` in `/proc/net/netstat`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetCounters {
    /// `TCPMigrateReqSuccess`; null where the kernel cannot migrate (before 5.14).
    pub migrate_req_success: Option<u64>,
    /// `TCPMigrateReqFailure`; null where the kernel cannot migrate.
    pub migrate_req_failure: Option<u64>,
    /// `ListenOverflows`
    pub listen_overflows: u64,
    /// `ListenDrops`
    pub listen_drops: u64,
}

/// Runs of the steering program by outcome.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcomes {
    /// For new connections: one run for each SYN that belongs to no connection yet.
    pub new: OutcomeCounts,
    /// For connections of a listener that closed.
    pub migrating: OutcomeCounts,
    /// For other packets that belong to no connection: ones that come late, and ACKs that bring a
    /// SYN cookie back.
    pub stray: OutcomeCounts,
}

/// Runs of the steering program; every run is in exactly one field.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutcomeCounts {
    /// The slot that the table names.
    pub selected: u64,
    /// A neighbour's slot, that one being empty.
    pub probed: u64,
    /// The parking listener.
    pub parked: u64,
    /// The kernel's hash over all live listeners.
    pub kernel: u64,
}

/// A reply of `Receive`. The connection comes with it, as a descriptor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handed {
    /// What to acknowledge.
    pub id: u64,
    /// The address of the group that it came to.
    pub listen: String,
    /// The client.
    pub peer: String,
}

/// Reply of `Acknowledge`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledged {
    /// False where another receiver has the connection, or will get it.
    pub yours: bool,
}

/// Reply of `Status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// By name.
    pub services: Vec<ServiceStatus>,
}

/// A service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Its name.
    pub name: String,
    /// The uid that owns its sockets.
    pub owner: u32,
    /// The units that become instances by themselves, if any do.
    pub units: Option<String>,
    /// Path of its network namespace; null for the daemon's.
    pub netns: Option<String>,
    /// The generation of its newest instance; 0 before the first.
    pub generation: u32,
    /// In the order of `--listen`.
    pub groups: Vec<GroupStatus>,
    /// By generation.
    pub instances: Vec<InstanceStatus>,
    /// The migration that is under way.
    pub migration: Option<MigrationStatus>,
}

/// A reuseport group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupStatus {
    /// Its address.
    pub listen: String,
    /// `tcp`
    pub protocol: String,
    /// `select` or `select_or_migrate`.
    pub program: String,
    /// What the program did since it was loaded.
    pub outcomes: Outcomes,
    /// How many slots there are.
    pub slots: u32,
    /// How connections wait while nobody serves; null where they do not.
    pub parking: Option<ParkingStatus>,
}

/// A group's parking listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParkingStatus {
    /// Whether it is open: not where nobody has served for too long.
    pub open: bool,
    /// Connections that wait in it.
    pub queued: u32,
    /// How many may wait; null where it is closed.
    pub backlog: Option<u32>,
    /// For how long nobody has served, in milliseconds; null while somebody does.
    pub unserved_ms: Option<u64>,
    /// For how long connections wait, in milliseconds.
    pub timeout_ms: u64,
}

/// An instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceStatus {
    /// Its label.
    pub label: String,
    /// Its number.
    pub generation: u32,
    /// Its process.
    pub pid: u32,
    /// `standby`, `serving`, `draining`, `retired` or `gone`.
    pub state: String,
    /// Established connections on the service's ports, of the process and of its descendants, but
    /// for those that are another instance's.
    pub sessions: u64,
    /// How many of its processes' `Receive` calls are under way.
    pub receivers: u64,
    /// Its listeners.
    pub listeners: Vec<ListenerStatus>,
}

/// A listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerStatus {
    /// Its group's address.
    pub listen: String,
    /// `SO_COOKIE`
    pub cookie: u64,
    /// Its slot in the group.
    pub slot: u16,
    /// Connections waiting to be accepted; null where the socket is closed.
    pub accept_queue: Option<u32>,
    /// How many may wait; null where the socket is closed.
    pub backlog: Option<u32>,
    /// New connections that were steered to it.
    pub selected: u64,
}

/// A migration that is under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigrationStatus {
    /// Labels of the instances that it moves away from.
    pub from: Vec<String>,
    /// Label of the instance that it moves to.
    pub to: String,
    /// As in [`Progress`].
    pub phase: String,
}

/// Reply of `MigrateReq`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigrateReqState {
    /// Whether the sysctl is on; null where the kernel does not have it.
    pub enabled: Option<bool>,
    /// Whether this kernel migrates at all: the file's presence proves nothing.
    pub supported: bool,
    /// Whether the call changed it.
    pub changed: bool,
}

/// Reply of `Doctor`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doctor {
    /// In the order of their weight.
    pub findings: Vec<Finding>,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What was looked at.
    pub subject: String,
    /// `ok`, `note`, `warning` or `error`.
    pub level: String,
    /// What was found.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// Why a call did not do what it was asked. The kind decides the exit code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Nothing has changed; the reason says what to change.
    Refused(Reason),
    /// This kernel can't.
    Unsupported(Reason),
    /// The caller may not.
    NotPermitted(Reason),
    /// It was tried and went wrong. What was done is undone, but for the reasons `not-retired`,
    /// `not-counted` and `target-ended` (the service has moved), `stopping` (the next daemon goes on) and
    /// `pins-left` (the service is removed).
    Failed(Reason),
}

impl Failure {
    /// What is said about it.
    #[must_use]
    pub fn reason(&self) -> &Reason {
        match self {
            Self::Refused(reason)
            | Self::Unsupported(reason)
            | Self::NotPermitted(reason)
            | Self::Failed(reason) => reason,
        }
    }
}

/// The parameters of every error of the interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// A short name for programs, such as `no-reuseport`.
    pub reason: String,
    /// `what: why`, in a sentence.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}
