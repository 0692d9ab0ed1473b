//! Servers that receive as they should.

use std::{collections::BTreeMap, io::Read, path::Path, process::Command};

use anyhow::{Result, ensure};
use reuseport_daemon::lab::{
    load::{Load, LoadOptions},
    process::Process,
    server::{Acceptor, Options},
    world::World,
};
use reuseport_tests::{
    held::{PATIENCE, Stopped, until_queued},
    outcomes::all_selected,
    receiving::until_receivers,
    stage::{DEADLINE, PORT, SERVICE, Stage, any_v4, far_away, program, tag, v4},
    waiting::{self, Waiting},
};

use super::{Old, hand_over, receiving};

/// More than a receiver may have unacknowledged, twice over.
const WAITING: u32 = 40;

/// The example in Python gets everything that waits for a server that hangs.
pub(crate) fn python() -> Result<()> {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/receive.py");
    let mut command = Command::new("python3");
    command.arg(example);
    to_an_example(command)
}

/// So does the one in Rust.
pub(crate) fn rust() -> Result<()> {
    to_an_example(Command::new(program("receive")?))
}

fn to_an_example(mut command: Command) -> Result<()> {
    let stage = Stage::set(World::loopback()?, &[any_v4()])?;
    let old = Old::start(&stage, Acceptor::Level)?;
    command
        .args([SERVICE, &PORT.to_string(), "example"])
        .env("REUSEPORTD_SOCKET", stage.home().socket());
    let _example = Process::start(stage.world.server(), command)?;
    until_receivers(&stage, "example", 1)?;

    let stands = old.stop()?;
    let clients = (0..WAITING).map(|_| waiting::connect(&stage));
    let clients: Vec<_> = clients.collect::<Result<_>>()?;
    until_queued(&stage, SERVICE, "v1", WAITING)?;
    let result = hand_over(&stage, "example")?;
    ensure!(result.handed_off == u64::from(WAITING), "{result:?}");
    ensure!(result.left_behind == 0, "{result:?}");
    ensure!(result.accepted_while_draining == 0, "{result:?}");
    // New ones go there in the usual way.
    for mut client in clients.into_iter().chain([waiting::connect(&stage)?]) {
        let mut answer = String::new();
        client.read_to_string(&mut answer)?;
        ensure!(answer == "example\n", "{answer:?}");
    }
    stands.go_on()?;
    all_selected(&stage.status()?.groups[0].outcomes, u64::from(WAITING) + 1)?;
    old.ends_without_work()
}

/// A server whose listener blocks, and one whose does not, with as many waiting as there is room for
/// at a receiver, one more, and many.
pub(crate) fn every_acceptor() -> Result<()> {
    const ROOM: u32 = 16;
    for acceptor in [Acceptor::Level, Acceptor::Edge, Acceptor::Blocking] {
        for count in [1, ROOM, ROOM + 1, 500] {
            let stage = Stage::set(World::loopback()?, &[any_v4()])?;
            let old = Old::start(&stage, acceptor)?;
            let new = stage.instance(&receiving(&stage, v4("v2")))?;
            until_receivers(&stage, "v2", 1)?;
            let stands = old.stop()?;
            let clients = Waiting::for_instance(&stage, "v1", count)?;
            let result = hand_over(&stage, "v2")?;
            ensure!(result.handed_off == u64::from(count), "{result:?}");
            let answered = clients.answered()?;
            ensure!(answered == BTreeMap::from([(tag("v2"), count)]));
            stands.go_on()?;
            ensure!(new.exit()?.accepted == u64::from(count));
            old.ends_without_work()?;
        }
    }
    Ok(())
}

/// Migrations back to back, over a link of 20 ms: from servers that hang and from servers that accept
/// beside the daemon, from listeners that block and from such that do not. Every connection is
/// answered.
pub(crate) fn churn() -> Result<()> {
    const MIGRATIONS: u32 = 16;
    const CLIENTS: u32 = 64;
    let stage = Stage::set(far_away()?, &[any_v4()])?;
    let options = |number: u32| {
        let acceptor = match number / 2 % 2 {
            0 => Acceptor::Level,
            _ => Acceptor::Blocking,
        };
        let label = v4(&format!("v{number}"));
        receiving(&stage, Options { acceptor, ..label })
    };
    let mut serving = stage.instance(&options(0))?;
    let load = LoadOptions {
        step_timeout: PATIENCE,
        ..LoadOptions::churn(vec![stage.world.v4(PORT)], CLIENTS)
    };
    let load = Load::start(stage.world.client(), load)?;
    ensure!(load.advances_by(100, DEADLINE), "a load under way");

    let mut handed_off = 0;
    for number in 1..=MIGRATIONS {
        let label = format!("v{number}");
        let next = stage.instance(&options(number))?;
        until_receivers(&stage, &label, 1)?;
        let stands = match number % 2 {
            0 => None,
            _ => Some(Stopped::stop(&serving)?),
        };
        let result = hand_over(&stage, &label)?;
        ensure!(result.left_behind == 0, "{result:?}");
        handed_off += result.handed_off;
        // What it had accepted before is its own to answer.
        stands.map_or(Ok(()), Stopped::go_on)?;
        serving.exit()?;
        serving = next;
        let enough = u64::from(CLIENTS) * 2;
        ensure!(load.advances_by(enough, DEADLINE), "a load that goes on");
    }
    let ledger = load.stop()?.connections;
    ledger.check_complete()?;
    ensure!(handed_off > 0, "nothing was handed over");
    all_selected(&stage.status()?.groups[0].outcomes, ledger.begun())
}
