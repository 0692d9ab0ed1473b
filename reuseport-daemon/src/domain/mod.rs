//! Every decision, and nothing else: services, generations, slots, steering tables, migration and
//! drain. No I/O, no clock, no tokio, no aya, no unsafe.
//!
//! A decision takes a [`Service`] as it is and answers with a [`Decision`]: effects in their order,
//! and the service as it will be when they have been performed; or with a [`Refusal`], which has
//! changed nothing.

mod address;
mod candidate;
mod effect;
mod expectation;
mod group;
mod listener_fault;
mod migration;
mod names;
mod parking;
mod patience;
mod refusal;
mod register;
mod service;
mod settings;
mod steer;
mod table;
#[cfg(test)]
mod testing;
mod units;
mod waking;

pub use address::{Address, AddressError};
pub use candidate::{Found, Placed, of_passed, of_process, unfit};
pub use effect::{Decision, Effect, Wait};
pub use expectation::next_look;
pub(crate) use group::is_deaf;
pub use group::{Group, Listener, TableCopy};
pub use listener_fault::ListenerFault;
pub use migration::{
    Drain, End, Migration, Observation, Options, Phase, Retire, Start, Tally, advance,
    listeners_closed, migrate, origin, process_ended, resume, roll_back,
};
pub use names::{Generation, Label, NameError, ProcessId, ServiceName, Slot, SocketCookie, Uid};
pub use parking::{Parking, park, park_timed_out, parked, stop_parking};
pub use patience::Patience;
pub use refusal::Refusal;
pub use register::{register, release};
pub use service::{Definition, Instance, InstanceState, Service};
pub use settings::{
    Difference, GroupSettings, Key, Setting, Settings, SettingsWarning, UnknownSetting, Value,
    Weight, compare,
};
pub use table::{named, share};
pub use units::{Holder, UnitError, UnitName, UnitPattern, choose};
pub use waking::{Occasion, Waker, Waking, reached_at};
