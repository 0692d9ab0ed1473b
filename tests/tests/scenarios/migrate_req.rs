//! `tcp_migrate_req`: by command, and as the daemon's configuration has it.

use anyhow::{Result, ensure};
use reuseport_daemon::{
    api::wire::AddService,
    lab::{
        fixture::Fixture,
        load::{Load, LoadOptions},
        sysctl,
        world::World,
    },
    sys::netns::Netns,
};
use reuseport_tests::{
    ctl::Ctl,
    held::{Held, PATIENCE, Stopped, service_status, until_queued},
    people::server_in,
    stage::{DEADLINE, PORT, SERVICE, Stage, any_v4, listening, v4},
    wait::until,
};

const CLIENTS: u32 = 3;

const DURING: &str = "migrate-req = \"during-migration\"\n";

fn is_on(netns: &Netns) -> Result<bool> {
    Ok(sysctl::read(netns, "net/ipv4/tcp_migrate_req")? == "1")
}

/// A migration that cannot end: the old server stands, with every client in its queue.
struct HeldUp<'a> {
    stands: Stopped<'a>,
    held: Held,
    load: Load,
}

impl<'a> HeldUp<'a> {
    /// `label` is the old server's.
    fn begin(
        stage: &Stage,
        (service, port): (&str, u16),
        (old, label): (&'a Fixture, &str),
        arguments: &str,
    ) -> Result<Self> {
        // First, so that it has accepted nobody whom it does not answer yet.
        let stands = Stopped::stop(old)?;
        let patient = LoadOptions {
            step_timeout: PATIENCE,
            ..LoadOptions::churn(vec![stage.world.v4(port)], CLIENTS)
        };
        let load = Load::start(stage.world.client(), patient)?;
        until_queued(stage, service, label, CLIENTS)?;
        let held = Held::begin(stage, service, arguments)?;
        ensure!(is_on(stage.world.server())?, "off during a migration");
        Ok(Self { stands, held, load })
    }
}

/// Everybody was answered.
fn check(load: Load) -> Result<()> {
    ensure!(load.advances_by(20, DEADLINE), "a load that goes on");
    Ok(load.stop()?.connections.check_complete()?)
}

fn until_over(stage: &Stage, service: &str) -> Result<()> {
    until("the end of the migration", || {
        Ok(service_status(stage, service)?.migration.is_none())
    })
}

/// It is on from the switch to the end, whatever end that is, and off before and after: done, rolled
/// back, out of time, and after the daemon was killed on the way.
pub(crate) fn on_during_a_migration() -> Result<()> {
    let mut stage = Stage::configured(World::loopback()?, DURING)?;
    stage.daemon().add_service(SERVICE, &[any_v4()])?;
    let first = stage.instance(&v4("v1"))?;
    let second = stage.instance(&v4("v2"))?;
    let game = (SERVICE, PORT);
    let on = |stage: &Stage| is_on(stage.world.server());
    ensure!(!on(&stage)?, "on before any migration");

    let it = HeldUp::begin(&stage, game, (&first, "v1"), "--to v2")?;
    it.stands.go_on()?;
    it.held.ends("done", 0)?;
    ensure!(!on(&stage)?, "on after a migration that is done");
    check(it.load)?;

    let it = HeldUp::begin(&stage, game, (&second, "v2"), "--to v1")?;
    Ctl::of(stage.home())?.done(&format!("rollback {SERVICE}"))?;
    it.held.ends("rolled_back", 5)?;
    ensure!(!on(&stage)?, "on after a rollback");
    it.stands.go_on()?;
    check(it.load)?;

    let in_time = "--to v1 --drain-timeout 2s";
    let it = HeldUp::begin(&stage, game, (&second, "v2"), in_time)?;
    it.held.ends("timed_out", 5)?;
    ensure!(!on(&stage)?, "on after a migration whose time is up");
    it.stands.go_on()?;
    check(it.load)?;

    let it = HeldUp::begin(&stage, game, (&first, "v1"), "--to v2")?;
    stage.replace_killed_daemon()?;
    drop(it.held);
    ensure!(on(&stage)?, "off in a migration that goes on");
    ensure!(service_status(&stage, SERVICE)?.migration.is_some());
    it.stands.go_on()?;
    until_over(&stage, SERVICE)?;
    ensure!(!on(&stage)?, "on after the daemon was killed");
    check(it.load)
}

/// Two services of one namespace hold it at the same time, and the daemon is killed meanwhile: it is
/// on until the last of them is through, and then as it was before the first.
pub(crate) fn two_services_at_once() -> Result<()> {
    let mut stage = Stage::configured(World::loopback()?, DURING)?;
    let service = |name: &str, port: u16| -> Result<(Fixture, Fixture)> {
        let listen = format!("0.0.0.0:{port}");
        stage
            .daemon()
            .add_service(name, std::slice::from_ref(&listen))?;
        let start = |number: u32| -> Result<Fixture> {
            let label = format!("{name}{number}");
            let server = server_in(stage.world.server(), &listening(&label, &[&listen]))?;
            stage.daemon().register(name, server.pid(), &label)?;
            Ok(server)
        };
        Ok((start(1)?, start(2)?))
    };
    let (east, _east_next) = service("east", 7001)?;
    let (west, _west_next) = service("west", 7002)?;
    let east = HeldUp::begin(&stage, ("east", 7001), (&east, "east1"), "--to east2")?;
    let west = HeldUp::begin(&stage, ("west", 7002), (&west, "west1"), "--to west2")?;
    stage.replace_killed_daemon()?;
    drop((east.held, west.held));

    east.stands.go_on()?;
    until_over(&stage, "east")?;
    ensure!(is_on(stage.world.server())?, "put back too early");
    west.stands.go_on()?;
    until_over(&stage, "west")?;
    ensure!(!is_on(stage.world.server())?, "not put back");
    check(east.load)?;
    check(west.load)
}

/// `on` turns it on in the daemon's namespace and in the services', and leaves it on.
pub(crate) fn on_for_good() -> Result<()> {
    let stage = Stage::configured(World::loopback()?, "migrate-req = \"on\"\n")?;
    ensure!(
        is_on(stage.world.server())?,
        "off in the daemon's namespace"
    );
    let elsewhere = Netns::create()?;
    let parameters = AddService {
        name: "there".to_owned(),
        listen: vec![any_v4()],
        netns: Some(elsewhere.path().display().to_string()),
        ..AddService::default()
    };
    ensure!(!is_on(&elsewhere)?, "on before there is a service");
    let _: serde_json::Value = stage.daemon().call("AddService", &parameters)?;
    ensure!(is_on(&elsewhere)?, "off in a service's namespace");
    Ok(())
}

/// The command shows and turns it, in the daemon's namespace and in a named one, and changes nothing
/// elsewhere.
pub(crate) fn by_command() -> Result<()> {
    let stage = Stage::bare(World::loopback()?)?;
    let ctl = Ctl::of(stage.home())?;
    let home = stage.world.server();
    let elsewhere = Netns::create()?;
    let named = format!("--netns {}", elsewhere.path().display());
    for (arguments, this, other) in [("", home, &elsewhere), (named.as_str(), &elsewhere, home)] {
        let run = |verb: &str, enabled: bool, changed: bool| -> Result<()> {
            let ran = ctl.run(&format!("--json migrate-req {verb} {arguments}"))?;
            let result = ran.result()?;
            let as_expected = ran.code == 0
                && result["enabled"] == enabled
                && result["changed"] == changed
                && result["supported"] == true;
            ensure!(as_expected, "{verb} {arguments}: {ran:?}");
            ensure!(is_on(this)? == enabled, "{verb} {arguments}");
            ensure!(!is_on(other)?, "{verb} {arguments} elsewhere");
            Ok(())
        };
        run("show", false, false)?;
        run("on", true, true)?;
        run("on", true, false)?;
        run("show", true, false)?;
        run("off", false, true)?;
        run("off", false, false)?;
    }
    Ok(())
}
