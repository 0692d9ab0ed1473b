//! A newer daemon takes up where an older one left, with a program of its own.

use std::fs;

use anyhow::{Context, Result, ensure};
use aya::{
    programs::{ProgramInfo, SkReuseport, loaded_programs, sk_reuseport::SkReuseportAttachType},
    sys::{Stats, enable_stats},
};
use object::{Object, ObjectSection};
use reuseport_daemon::{
    lab::{
        load::{Load, LoadOptions},
        world::World,
    },
    sys::migrate_req,
};
use reuseport_tests::{
    ctl::Ctl,
    held::{Held, PATIENCE, Stopped, until_queued, until_state},
    outcomes::all_selected,
    stage::{DEADLINE, PORT, SERVICE, Stage, any_v4, far_away, tag, v4},
    traces::Traces,
    wait::until,
};

use super::parking::{
    begin,
    store::{ROOM, keeping},
    until_parked,
};

/// Under churn, again and again: nothing is lost, the counters go on exactly, and it is the new
/// program that runs.
pub(crate) fn under_churn() -> Result<()> {
    for world in [World::loopback()?, far_away()?] {
        let mut stage = Stage::set(world, &[any_v4()])?;
        let _v1 = stage.instance(&v4("v1"))?;
        let v2 = stage.instance(&v4("v2"))?;
        let newer = newer_object()?;
        let targets = vec![stage.world.v4(PORT)];
        let load = Load::start(stage.world.client(), LoadOptions::churn(targets, 16))?;
        ensure!(load.advances_by(200, DEADLINE), "a load under way");
        let (before, pins) = (pinned(&stage)?, Traces::of(&stage)?.pins);
        let _stats = enable_stats(Stats::RunTime)?;

        stage.upgrade_daemon(newer.path())?;
        let after = pinned(&stage)?;
        ensure!(after.tag() != before.tag(), "the old program is pinned");
        ensure!(Traces::of(&stage)?.pins == pins, "other pins than before");
        // No group runs it any more, and nobody else holds it.
        until("the old program is gone", || {
            Ok(loaded(before.id()).is_none())
        })?;
        let runs = after.run_count();
        ensure!(load.advances_by(500, DEADLINE), "a load that goes on");
        let counted = loaded(after.id()).context("the new program")?.run_count();
        ensure!(
            counted >= runs + 500,
            "the new program ran {runs} to {counted} times"
        );

        // Once more with the same object, which changes nothing; and back to the one that is built in.
        stage.upgrade_daemon(newer.path())?;
        ensure!(pinned(&stage)?.id() == after.id(), "loaded once more");
        stage.restart_daemon()?;
        ensure!(pinned(&stage)?.tag() == before.tag(), "not the older one");
        ensure!(Traces::of(&stage)?.pins == pins, "other pins than before");

        let result = stage.migrate_to(&v2, "v2", || {})?;
        ensure!(result.from == ["v1"], "{result:?}");
        ensure!(load.advances_by(100, DEADLINE), "a load that goes on");
        let ledger = load.stop()?.connections;
        ledger.check_complete()?;
        all_selected(&stage.status()?.groups[0].outcomes, ledger.begun())?;
    }
    Ok(())
}

/// In the middle of a migration, which goes on and ends as it should.
pub(crate) fn during_a_migration() -> Result<()> {
    let mut stage = Stage::set(World::loopback()?, &[any_v4()])?;
    let old = stage.instance(&v4("v1"))?;
    let _new = stage.instance(&v4("v2"))?;
    let newer = newer_object()?;
    let stands = Stopped::stop(&old)?;
    let targets = vec![stage.world.v4(PORT)];
    let options = LoadOptions {
        step_timeout: PATIENCE,
        ..LoadOptions::churn(targets, 5)
    };
    let load = Load::start(stage.world.client(), options)?;
    until_queued(&stage, SERVICE, "v1", 5)?;
    let held = Held::begin(&stage, SERVICE, "--to v2 --retire shutdown")?;
    let before = pinned(&stage)?;
    stage.upgrade_daemon(newer.path())?;
    // Whoever asked is told, and can ask the new daemon for the end of the same migration.
    let (code, told) = held.end()?;
    ensure!(code == 1 && told["error"]["reason"] == "stopping", "{told}");
    ensure!(pinned(&stage)?.tag() != before.tag());
    until_queued(&stage, SERVICE, "v1", 5)?;
    let ctl = Ctl::of(stage.home())?;
    let other = ctl.run(&format!("--json migrate {SERVICE} --to v2"))?;
    let reason = &other.result()?["error"]["reason"];
    ensure!(reason == "migration-under-way", "{other:?}");
    let held = Held::begin(&stage, SERVICE, "--to v2 --retire shutdown")?;
    stands.go_on()?;
    let result = held.ends("done", 0)?;
    ensure!(result.from == ["v1"] && result.to == "v2", "{result:?}");
    until_state(&stage, SERVICE, "v1", "retired")?;
    ensure!(load.advances_by(100, DEADLINE), "a load that goes on");
    let ledger = load.stop()?.connections;
    ledger.check_complete()?;
    ensure!(ledger.by_label()[&tag("v1")] == 5);
    all_selected(&stage.status()?.groups[0].outcomes, ledger.begun())
}

/// While nobody serves and everybody waits: the next daemon has them wait on, and it is the new program
/// that moves them to who serves then.
pub(crate) fn while_connections_wait() -> Result<()> {
    let mut stage = keeping(far_away()?, ROOM)?;
    let newer = newer_object()?;
    let load = begin(&stage, vec![stage.world.v4(PORT)], 16)?;
    until_parked(&stage, 16)?;
    let before = pinned(&stage)?;
    stage.upgrade_daemon(newer.path())?;
    until_parked(&stage, 16)?;
    ensure!(pinned(&stage)?.tag() != before.tag(), "the old program");
    until("the old program is gone", || {
        Ok(loaded(before.id()).is_none())
    })?;
    let _v1 = stage.instance(&v4("v1"))?;
    ensure!(load.advances_by(200, DEADLINE), "a load under way");
    Ok(load.stop()?.connections.check_complete()?)
}

/// The program that is pinned for the stage's service.
fn pinned(stage: &Stage) -> Result<ProgramInfo> {
    let group = stage.home().bpffs().join("reuseportd").join(SERVICE);
    let (name, kind) = if migrate_req::supported()? {
        ("select_or_migrate", SkReuseportAttachType::SelectOrMigrate)
    } else {
        ("select", SkReuseportAttachType::Select)
    };
    let mut groups = fs::read_dir(&group)?.filter_map(|entry| {
        let pin = entry.ok()?.path().join(name);
        pin.exists().then_some(pin)
    });
    let pin = groups.next().context("no program is pinned")?;
    Ok(SkReuseport::from_pin(pin, kind)?.info()?)
}

/// A program and its figures of now, if it is still there.
fn loaded(id: u32) -> Option<ProgramInfo> {
    let mut all = loaded_programs();
    all.find_map(|it| it.ok().filter(|it| it.id() == id))
}

/// The object that is built in, with programs that do the same and are not the same: the first
/// constant of each that is loaded in 64 bits (`BPF_ALU64 | BPF_MOV | BPF_K`) is loaded in 32
/// (`BPF_ALU | BPF_MOV | BPF_K`), which clears the other half.
fn newer_object() -> Result<tempfile::NamedTempFile> {
    const WIDE_LOAD: u8 = 0x18;
    const MOVE_64: u8 = 0xb7;
    const MOVE_32: u8 = 0xb4;
    const BUILT_IN: &[u8] = include_bytes!("../../../reuseport-daemon/bytecode/reuseport.bpf.o");
    let mut bytes = BUILT_IN.to_owned();
    let mut places = Vec::new();
    let object = object::File::parse(&*bytes)?;
    for name in ["sk_reuseport", "sk_reuseport/migrate"] {
        let section = object.section_by_name(name).context("a program")?;
        let (start, _) = section.file_range().context("its place")?;
        let (mut at, code) = (0, section.data()?);
        loop {
            let instruction = code.get(at..at + 8).context("no constant")?;
            let constant = i32::from_ne_bytes(instruction[4..].try_into()?);
            if instruction[0] == MOVE_64 && constant >= 0 {
                break;
            }
            at += if instruction[0] == WIDE_LOAD { 16 } else { 8 };
        }
        places.push(usize::try_from(start)? + at);
    }
    for place in places {
        bytes[place] = MOVE_32;
    }
    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), bytes)?;
    Ok(file)
}
