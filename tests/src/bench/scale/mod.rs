//! How it grows: services, listeners, established connections, full queues and half-open handshakes.

mod connections;
mod crowd;
mod handshakes;
mod listeners;
mod queues;
mod services;

use std::time::{Duration, Instant};

use anyhow::Result;

use super::{report::Findings, rounds::Effort, summary::Summary};
use crate::{stage::Stage, usage::cpu};

pub(super) fn measure(effort: Effort) -> Result<Findings> {
    let mut all = Findings::default();
    for measured in [
        services::measure(effort)?,
        listeners::measure(effort)?,
        connections::measure(effort)?,
        queues::measure(effort)?,
        handshakes::measure(effort)?,
    ] {
        all.0.extend(measured.0);
        all.1.extend(measured.1);
    }
    Ok(all)
}

/// What `status` takes: in ms, as a caller sees it, and of the daemon's processor time.
struct StatusTime {
    whole: Summary,
    processor: Summary,
}

fn time_status(stage: &Stage, times: usize) -> Result<StatusTime> {
    let pid = stage.daemon().pid();
    let (mut whole, mut processor) = (Vec::new(), Vec::new());
    for _ in 0..times {
        let (begun, used) = (Instant::now(), cpu(pid)?);
        stage.daemon().status()?;
        whole.push(millis(begun.elapsed()));
        processor.push(millis(cpu(pid)?.saturating_sub(used)));
    }
    Ok(StatusTime {
        whole: Summary::of(whole),
        processor: Summary::of(processor),
    })
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
