//! The maps, by the names in [`reuseport_common::names`].
//!
//! The loader gives `SOCKETS` and `SELECTED` one entry per slot of the service; [`DEFAULT_SLOTS`]
//! is what they have where it says nothing. An untouched `ACTIVE` and `STEERING` are a valid state:
//! table 0, all of it [`PARKING_SLOT`](reuseport_common::PARKING_SLOT).

use aya_ebpf::{
    macros::map,
    maps::{Array, PerCpuArray, ReusePortSockArray},
};
use reuseport_common::{DEFAULT_SLOTS, SteeringTable};

#[map]
pub(crate) static SOCKETS: ReusePortSockArray =
    ReusePortSockArray::with_max_entries(DEFAULT_SLOTS, 0);

#[map]
pub(crate) static STEERING: Array<SteeringTable> = Array::with_max_entries(2, 0);

#[map]
pub(crate) static ACTIVE: Array<u32> = Array::with_max_entries(1, 0);

#[map]
pub(crate) static OUTCOMES: PerCpuArray<u64> =
    PerCpuArray::with_max_entries(reuseport_common::OUTCOMES, 0);

#[map]
pub(crate) static SELECTED: PerCpuArray<u64> = PerCpuArray::with_max_entries(DEFAULT_SLOTS, 0);
