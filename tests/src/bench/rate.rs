//! Connections a second of one server at several ports, of which one is steered.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use reuseport_daemon::{
    domain::Address,
    lab::{
        load::{Load, LoadOptions, Protocol},
        world::World,
    },
};

use super::{
    progress,
    report::{Findings, Goal, Table, Wanted},
    rounds::{Effort, interleaved},
    summary::{Summary, float},
};
use crate::{
    nginx::{self, Nginx},
    stage::{DEADLINE, PORT, SERVICE, Stage, any_v4, listening, tag},
};

const CLIENTS: u32 = 16;
const WORKERS: u16 = 2;

/// The port of the service, and two that nobody steers: what differs between those is chance.
const PORTS: [u16; 3] = [PORT, PORT + 1, PORT + 2];

pub(super) fn measure(effort: Effort) -> Result<Findings> {
    let mut table = Table::new(
        "Connections a second over loopback, each with a request and its answer; one server with \
         2 workers that listens at several ports, of which one is steered. The last column is chance: \
         a port that is not steered beside another one that is not.",
        &["server", "steered", "not steered", "ratio", "chance"],
    );
    let mut worst = f64::INFINITY;
    let mut add = |name: &str, rates: &[Vec<f64>]| {
        let ratio = Summary::of_ratios(&rates[0], &rates[1]);
        worst = worst.min(ratio.median);
        table.row([
            name.into(),
            Summary::of(rates[0].iter().copied()).into(),
            Summary::of(rates[1].iter().copied()).into(),
            ratio.into(),
            Summary::of_ratios(&rates[2], &rates[1]).into(),
        ]);
    };

    let stage = Stage::set(World::loopback()?, &[any_v4()])?;
    let addresses: Vec<String> = PORTS.map(|port| format!("0.0.0.0:{port}")).into();
    let nginx = nginx::Options {
        label: tag("nginx"),
        listen: parsed(&addresses)?,
        workers: WORKERS.into(),
    };
    let nginx = Nginx::start(stage.world.server(), &nginx)?;
    stage.daemon().register(SERVICE, nginx.pid(), "nginx")?;
    add("nginx", &rates(&stage, Protocol::Http, effort)?);

    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let mut lab = listening("lab", &addresses);
    lab.workers = WORKERS;
    drop(nginx);
    let stage = Stage::set(World::loopback()?, &[any_v4()])?;
    let _lab = stage.instance(&lab)?;
    add("lab server", &rates(&stage, Protocol::Lab, effort)?);

    let goal = Goal {
        of: "connections a second, steered beside not steered",
        wanted: Wanted::AtLeast(0.99),
        found: worst,
        unit: "",
        floor: "A run of the program takes what packet-path says of the time of a connection; the \
                rest is chance, of which the last column shows how much there is."
            .to_owned(),
    };
    Ok((vec![table], vec![goal]))
}

/// The rates at each of the ports, round by round.
fn rates(stage: &Stage, protocol: Protocol, effort: Effort) -> Result<Vec<Vec<f64>>> {
    progress(&format!("rate, {protocol:?}"));
    let span = Duration::from_millis(effort.of(150, 400));
    let rates = interleaved(effort.of(6, 30), &PORTS, |port| {
        rate(&stage.world, *port, protocol, span)
    })?;
    let groups = stage.status()?.groups;
    let steered = groups.first().context("a group")?.outcomes.new.selected;
    ensure!(steered > 0, "nothing was steered");
    Ok(rates)
}

/// How many connections a second there are at a port.
fn rate(world: &World, port: u16, protocol: Protocol, span: Duration) -> Result<f64> {
    let options = LoadOptions {
        protocol,
        ..LoadOptions::churn(vec![world.v4(port)], CLIENTS)
    };
    let load = Load::start(world.client(), options)?;
    let enough = u64::from(CLIENTS) * 4;
    ensure!(load.advances_by(enough, DEADLINE), "a load under way");
    let (answered, begun) = (load.progress().answered, Instant::now());
    // What is measured is this time itself.
    thread::sleep(span);
    let answered = load.progress().answered - answered;
    let elapsed = begun.elapsed();
    load.stop()?.connections.check_complete()?;
    Ok(float(answered) / elapsed.as_secs_f64())
}

fn parsed(addresses: &[String]) -> Result<Vec<Address>> {
    Ok(addresses
        .iter()
        .map(|it| it.parse())
        .collect::<Result<_, _>>()?)
}
