//! Connections lost by handovers, with reuseportd and with what people use instead.

mod handover;
mod passing;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use reuseport_daemon::lab::{
    ledger::LossKind,
    load::{Load, LoadOptions, Report},
    world::World,
};

use self::handover::{Recipe, Service};
use super::{
    progress,
    report::{Findings, Goal, Table, Wanted},
    rounds::Effort,
    summary::float,
};
use crate::stage::{DEADLINE, PORT, far_away};

/// Where clients are.
#[derive(Clone, Copy, Debug)]
enum Distance {
    Loopback,
    FarAway,
}

impl Distance {
    fn name(self) -> &'static str {
        match self {
            Self::Loopback => "loopback",
            Self::FarAway => "20 ms",
        }
    }

    fn world(self) -> Result<World> {
        match self {
            Self::Loopback => Ok(World::loopback()?),
            Self::FarAway => far_away(),
        }
    }

    /// As many as keep a server busy from there.
    fn clients(self) -> u32 {
        match self {
            Self::Loopback => 16,
            Self::FarAway => 256,
        }
    }
}

pub(super) fn measure(effort: Effort) -> Result<Findings> {
    let mut table = Table::new(
        "Handovers of a server under connections that never stop, each of which must be answered \
         once. `reset`, `refused`, `other` are how they were lost.",
        &[
            "clients",
            "handover",
            "handovers",
            "connections",
            "lost",
            "lost a handover",
            "reset",
            "refused",
            "other",
            "longest wait, ms",
            "handover, ms",
        ],
    );
    let handovers = effort.of(2, 20);
    let mut ours = 0;
    for distance in [Distance::Loopback, Distance::FarAway] {
        for recipe in Recipe::ALL {
            progress(&format!("loss, {}, {}", distance.name(), recipe.name()));
            let (report, time) = play(recipe, distance, handovers)?;
            let ledger = &report.connections;
            let (reset, refused) = (
                ledger.lost_by(LossKind::Reset),
                ledger.lost_by(LossKind::Refused),
            );
            let lost = ledger.lost();
            if recipe == Recipe::Reuseportd {
                ours += lost;
            }
            table.row([
                distance.name().into(),
                recipe.name().into(),
                f64::from(handovers).into(),
                float(ledger.begun()).into(),
                float(lost).into(),
                (float(lost) / f64::from(handovers)).into(),
                float(reset).into(),
                float(refused).into(),
                float(lost - reset - refused).into(),
                (ledger.longest().as_secs_f64() * 1e3).into(),
                (time.as_secs_f64() * 1e3 / f64::from(handovers)).into(),
            ]);
        }
    }
    let goal = Goal {
        of: "connections lost with reuseportd",
        wanted: Wanted::AtMost(0.0),
        found: float(ours),
        unit: "",
        floor: "There is none: it is a fault.".to_owned(),
    };
    Ok((vec![table], vec![goal]))
}

/// Hands a service over again and again, and gives what clients saw of it and how long it took.
fn play(recipe: Recipe, distance: Distance, handovers: u32) -> Result<(Report, Duration)> {
    let world = distance.world()?;
    let mut service = Service::start(recipe, world)?;
    let clients = distance.clients();
    let options = LoadOptions {
        protocol: recipe.protocol(),
        ..LoadOptions::churn(vec![service.world().v4(PORT)], clients)
    };
    let load = Load::start(service.world().client(), options)?;
    let go_on = || -> Result<()> {
        // Every client ends what it had begun, and begins anew.
        let enough = u64::from(clients) * 2;
        ensure!(load.advances_by(enough, DEADLINE), "a load that goes on");
        Ok(())
    };
    go_on()?;
    let mut time = Duration::ZERO;
    for number in 1..=handovers {
        let begun = Instant::now();
        service.hand_over(number)?;
        time += begun.elapsed();
        go_on()?;
    }
    Ok((load.stop()?, time))
}
