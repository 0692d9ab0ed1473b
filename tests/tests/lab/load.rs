//! Load without any migration: all of it is answered.

use std::{
    os::fd::AsFd,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use reuseport_daemon::{
    lab::{
        link::{Direction, LinkOptions, Segment, Verdict},
        load::{Load, LoadOptions, Report},
        server::{Acceptor, Counts, Options},
        world::World,
    },
    sys::packets,
};

use super::setup::{DEADLINE, PORT, RUN, far_away, listeners_of, start, tag, tell, v4_options};

pub(crate) fn loopback_churn() -> anyhow::Result<()> {
    let world = World::loopback()?;
    let server = start(&world, &v4_options("v1"))?;
    let churn = LoadOptions::churn(vec![world.v4(PORT)], 8);
    let report = run_for(&world, churn, RUN)?;
    tell("loopback", &report);
    complete(&report, server.exit()?)?;
    ensure!(report.rate() > 5_000, "{} a second", report.rate());
    Ok(())
}

/// A listener that takes no packets for a moment, again and again: handshakes wait, and nothing is lost.
/// What is completed at that very moment hears what is sent to it.
pub(crate) fn packets_ignored() -> anyhow::Result<()> {
    const TIMES: usize = 3_000;
    let world = World::loopback()?;
    let server = start(&world, &v4_options("v1"))?;
    let listeners = listeners_of(&server)?;
    let churn = LoadOptions {
        step_timeout: Duration::from_secs(20),
        ..LoadOptions::churn(vec![world.v4(PORT)], 64)
    };
    let load = Load::start(world.client(), churn)?;
    ensure!(load.advances_by(500, DEADLINE), "a load under way");
    for listener in listeners.iter().cycle().take(TIMES) {
        packets::ignore(listener.as_fd())?;
        packets::take(listener.as_fd())?;
        thread::sleep(Duration::from_millis(1));
    }
    ensure!(load.advances_by(500, DEADLINE), "a load that goes on");
    let report = load.stop()?;
    tell("packets ignored", &report);
    // As long as it takes until a SYN is sent again.
    let longest = report.connections.longest();
    ensure!(longest > Duration::from_millis(900), "at most {longest:?}");
    complete(&report, server.exit()?)
}

pub(crate) fn link_churn() -> anyhow::Result<()> {
    let world = far_away()?;
    let server = start(&world, &v4_options("v1"))?;
    let churn = LoadOptions::churn(vec![world.v4(PORT)], 256);
    let report = run_for(&world, churn, RUN)?;
    tell("20 ms link", &report);
    complete(&report, server.exit()?)?;

    // One client at a time, so that nothing waits for a processor: the handshake and the answer
    // take a round trip each.
    let server = start(&world, &v4_options("v2"))?;
    let single = LoadOptions::churn(vec![world.v4(PORT)], 1);
    let load = Load::start(world.client(), single)?;
    let begin = Instant::now();
    ensure!(load.advances_by(20, DEADLINE), "20 connections");
    let each = begin.elapsed() / 20;
    complete(&load.stop()?, server.exit()?)?;
    let expected = Duration::from_millis(40)..Duration::from_millis(80);
    ensure!(expected.contains(&each), "a connection took {each:?}");
    Ok(())
}

pub(crate) fn every_acceptor() -> anyhow::Result<()> {
    for acceptor in [Acceptor::Level, Acceptor::Edge, Acceptor::Blocking] {
        let world = World::loopback()?;
        let options = Options {
            acceptor,
            workers: 3,
            ..v4_options("v1")
        };
        let server = start(&world, &options)?;
        let churn = LoadOptions::churn(vec![world.v4(PORT)], 8);
        let report = run_for(&world, churn, RUN / 4)?;
        tell(&format!("{acceptor:?}"), &report);
        complete(&report, server.exit()?)?;
    }
    Ok(())
}

pub(crate) fn both_families() -> anyhow::Result<()> {
    for world in [World::loopback()?, far_away()?] {
        let options = Options {
            listen: vec![
                format!("0.0.0.0:{PORT}").parse()?,
                format!("[::]:{PORT},v6only").parse()?,
            ],
            ..v4_options("v1")
        };
        reach_both(&world, &options)?;
    }
    Ok(())
}

pub(crate) fn dual_stack() -> anyhow::Result<()> {
    for world in [World::loopback()?, far_away()?] {
        let options = Options {
            listen: vec![format!("[::]:{PORT}").parse()?],
            ..v4_options("v1")
        };
        reach_both(&world, &options)?;
    }
    Ok(())
}

pub(crate) fn lossy_link() -> anyhow::Result<()> {
    let world = World::linked(LinkOptions {
        delay: Duration::from_millis(2),
        loss: 30_000,
        seed: 7,
    })?;
    let server = start(&world, &v4_options("v1"))?;
    let options = LoadOptions {
        step_timeout: Duration::from_secs(60),
        ..LoadOptions::churn(vec![world.v4(PORT)], 128)
    };
    let report = run_for(&world, options, RUN)?;
    tell("3 % loss", &report);
    server.exit()?;
    report.connections.check_complete()?;
    let lost = world.link().context("a link")?.counts().lost;
    ensure!(lost > 20, "only {lost} packets lost");
    Ok(())
}

pub(crate) fn fast_open_and_deferred() -> anyhow::Result<()> {
    let world = far_away()?;
    let options = Options {
        fast_open: Some(64),
        defer_accept: Some(5),
        ..v4_options("v1")
    };
    let server = start(&world, &options)?;
    let churn = LoadOptions::churn(vec![world.v4(PORT)], 32);
    let report = run_for(&world, churn, RUN / 4)?;
    complete(&report, server.exit()?)
}

pub(crate) fn sessions_stay() -> anyhow::Result<()> {
    let world = World::loopback()?;
    let old = start(&world, &v4_options("v1"))?;
    let options = LoadOptions {
        sessions: 50,
        session_pause: Duration::from_millis(1),
        ..LoadOptions::churn(vec![world.v4(PORT)], 2)
    };
    let load = Load::start(world.client(), options)?;
    ensure!(load.advances_by(5_000, DEADLINE), "a load under way");
    let new = start(&world, &v4_options("v2"))?;
    ensure!(load.advances_by(5_000, DEADLINE), "a load on both");
    let report = load.stop()?;
    report.connections.check_complete()?;
    report.sessions.check_complete()?;
    let speakers = report.sessions.by_label();
    ensure!(
        speakers.keys().eq([&tag("v1")]),
        "sessions begun before the second server were answered by {speakers:?}"
    );
    let newcomers = report.connections.by_label();
    ensure!(newcomers.len() == 2, "connections went to {newcomers:?}");
    drop((old, new));
    Ok(())
}

/// Handshakes are held half-open until told otherwise: bare ACKs dropped, then SYNs held back.
pub(crate) fn filtered_handshakes() -> anyhow::Result<()> {
    let world = far_away()?;
    let link = world.link().context("a link")?;
    let server = start(&world, &v4_options("v1"))?;
    // A SYN that is held is not retransmitted within this test, so its client waits for the filter.
    link.set_filter(Box::new(|direction, packet| {
        let syn = Segment::parse(packet).is_some_and(|s| s.is_syn() && s.destination == PORT);
        if direction == Direction::ToServer && syn {
            Verdict::Hold
        } else {
            Verdict::Pass
        }
    }));
    let churn = LoadOptions::churn(vec![world.v4(PORT)], 16);
    let load = Load::start(world.client(), churn.clone())?;
    wait_until(|| link.counts().held >= 16)?;
    ensure!(load.progress().answered == 0, "answered without a SYN");
    link.clear_filter();
    ensure!(load.advances_by(64, DEADLINE), "what was held goes on");
    complete(&load.stop()?, server.exit()?)?;

    let server = start(&world, &v4_options("v2"))?;
    link.set_filter(Box::new(|direction, packet| {
        let ack = Segment::parse(packet).is_some_and(|s| s.is_bare_ack() && s.destination == PORT);
        if direction == Direction::ToServer && ack {
            Verdict::Drop
        } else {
            Verdict::Pass
        }
    }));
    // The request that follows acknowledges as well, and so completes the handshake.
    let load = Load::start(world.client(), churn)?;
    ensure!(load.advances_by(64, DEADLINE), "requests acknowledge too");
    ensure!(link.counts().dropped >= 64, "bare ACKs were dropped");
    complete(&load.stop()?, server.exit()?)
}

fn reach_both(world: &World, options: &Options) -> anyhow::Result<()> {
    let server = start(world, options)?;
    let churn = LoadOptions::churn(vec![world.v4(PORT), world.v6(PORT)], 16);
    let report = run_for(world, churn, RUN / 4)?;
    complete(&report, server.exit()?)
}

fn run_for(world: &World, options: LoadOptions, time: Duration) -> anyhow::Result<Report> {
    let load = Load::start(world.client(), options)?;
    thread::sleep(time);
    Ok(load.stop()?)
}

/// Everything was answered, and the server's books say the same as the clients'.
fn complete(report: &Report, server: Counts) -> anyhow::Result<()> {
    report.connections.check_complete()?;
    let answered = report.connections.answered();
    ensure!(answered > 0, "nothing was asked");
    let expected = Counts {
        accepted: answered,
        answered,
        ..Counts::default()
    };
    ensure!(server == expected, "{server:?} for {answered} answers");
    Ok(())
}

fn wait_until(condition: impl Fn() -> bool) -> anyhow::Result<()> {
    let end = Instant::now() + DEADLINE;
    while !condition() {
        ensure!(Instant::now() < end, "not within {DEADLINE:?}");
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
