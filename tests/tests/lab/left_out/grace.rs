//! The grace period left out.
//!
//! Between the choice of a listener and the table of half-open handshakes a SYN is in no place that
//! anybody can look at, for some microseconds. A socket filter of the old listener, which the kernel
//! runs in between, makes them a good many more.

use std::{
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use anyhow::{Result, ensure};
use reuseport_daemon::{
    domain::Slot,
    lab::{
        load::{Load, LoadOptions, Report},
        world::World,
    },
    steering::ProgramKind,
    sys::socket,
};
use reuseport_tests::steered::Steered;
use socket2::{SockFilter, SockRef};

use super::drain::{Drain, cookie_of};
use crate::lab::setup::{DEADLINE, PORT, listeners_of, start, tell, v4_options};

const CLIENTS: u32 = 16;

/// What is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LeftOut {
    GracePeriod,
    Nothing,
}

/// The old listener closes while a SYN is on its way to it. The kernel drops that, and its client waits
/// a second until it sends another one; a SYN that has just been let in loses its connection, with all
/// the others that are half-open.
pub(crate) fn grace() -> Result<()> {
    let without = replace(100, LeftOut::GracePeriod)?;
    tell("100 closings, no grace period", &without);
    let with = replace(25, LeftOut::Nothing)?;
    tell("25 closings, all steps", &with);
    let ledger = &without.connections;
    ensure!(ledger.longest() >= RETRY, "no SYN was dropped");
    ensure!(ledger.lost() > 0, "nothing was lost");
    Ok(with.connections.check_complete()?)
}

/// When a client sends a SYN again that was not answered (`TCP_TIMEOUT_INIT`,
/// <https://elixir.bootlin.com/linux/v6.18/source/include/net/tcp.h>).
const RETRY: Duration = Duration::from_secs(1);

/// Replaces a server again and again.
fn replace(rounds: u32, left_out: LeftOut) -> Result<Report> {
    let world = World::loopback()?;
    let drain = Drain::of(&world)?;
    let mut steered = Steered::load(ProgramKind::Select)?;
    let mut serving = start(&world, &v4_options("v0"))?;
    let mut slot = Slot(1);
    steered.admit(slot, &serving)?;
    steered.switch_to(slot)?;
    let churn = LoadOptions::churn(vec![world.v4(PORT)], CLIENTS);
    let load = Load::start(world.client(), churn)?;
    for round in 1..=rounds {
        let next = start(&world, &v4_options(&format!("v{round}")))?;
        slot = Slot(3 - slot.0);
        steered.admit(slot, &next)?;
        let old = cookie_of(&serving)?;
        let listeners = listeners_of(&serving)?;
        listeners.iter().try_for_each(slow_down)?;
        let enough = u64::from(CLIENTS);
        ensure!(load.advances_by(enough, DEADLINE), "a load that goes on");
        steered.switch_to(slot)?;
        match left_out {
            LeftOut::GracePeriod => {}
            LeftOut::Nothing => drain.everything(old)?,
        }
        for listener in &listeners {
            socket::shutdown(listener.as_fd())?;
        }
        drop(listeners);
        serving.exit()?;
        serving = next;
    }
    let report = load.stop()?;
    serving.exit()?;
    Ok(report)
}

/// Gives a listener the longest filter that it may have (`optmem_max`: 128 KiB, or 20 before Linux 6.7).
fn slow_down(listener: &OwnedFd) -> Result<()> {
    let listener = SockRef::from(listener);
    match listener.attach_filter(&slow_filter(2000)?) {
        Err(error) if error.raw_os_error() == Some(libc::ENOMEM) => {
            Ok(listener.attach_filter(&slow_filter(250)?)?)
        }
        attached => Ok(attached?),
    }
}

/// Takes every packet, slowly: it lets the kernel find out again and again where the payload begins.
fn slow_filter(looks: usize) -> Result<Vec<SockFilter>> {
    let look = u16::try_from(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS)?;
    let payload = (libc::SKF_AD_OFF + libc::SKF_AD_PAY_OFFSET).cast_unsigned();
    let take = u16::try_from(libc::BPF_RET | libc::BPF_K)?;
    let looks = (0..looks).map(|_| SockFilter::new(look, 0, 0, payload));
    let take = SockFilter::new(take, 0, 0, u32::MAX);
    Ok(looks.chain([take]).collect())
}
