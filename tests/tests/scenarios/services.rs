//! Services do not get in each other's way, and a service's migrations do not get in their own.

use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use reuseport_daemon::{
    api::wire::{Migrate, MigrationResult},
    lab::{
        fixture::Fixture,
        ledger::Mark,
        load::{Load, LoadOptions},
        world::World,
    },
};
use reuseport_tests::{
    ctl::Ctl,
    held::{Held, PATIENCE, Stopped, service_status, until_queued},
    outcomes::all_selected,
    people::server_in,
    stage::{DEADLINE, PORT, SERVICE, Stage, any_v4, listening, tag, v4},
};

const ROUNDS: u32 = 20;

/// A service with its server and its clients, those of each address by themselves.
struct Side {
    name: &'static str,
    listen: [&'static str; 2],
    serving: Fixture,
    loads: [Load; 2],
    spans: Vec<Span>,
}

/// From a switch to the next migration: a mark of each load.
struct Span {
    label: String,
    switched: [Mark; 2],
    next: [Mark; 2],
}

/// Two services migrate at the same time, over and over: each connection is answered by its own
/// service, by the instance that serves, and each group's program runs once for each of its
/// connections.
pub(crate) fn two_at_once() -> Result<()> {
    let stage = Stage::bare(World::loopback()?)?;
    let mut sides = [
        Side::begin(&stage, "east", ["0.0.0.0:7001", "[::]:7002,v6only"])?,
        Side::begin(&stage, "west", ["0.0.0.0:7003", "[::]:7004,v6only"])?,
    ];
    for round in 1..=ROUNDS {
        thread::scope(|scope| {
            let threads = sides.each_mut().map(|side| {
                let stage = &stage;
                scope.spawn(move || side.migrate(stage, round))
            });
            threads.map(|it| it.join().unwrap_or_else(|_| Err(anyhow!("a panic"))))
        })
        .into_iter()
        .collect::<Result<Vec<()>>>()?;
    }
    check_all(sides, &stage)
}

/// Ends the load of every side, and checks its ledgers and its groups' counters.
fn check_all<const N: usize>(sides: [Side; N], stage: &Stage) -> Result<()> {
    let checked: Vec<Checked> = sides
        .into_iter()
        .map(|side| side.check(stage))
        .collect::<Result<_>>()?;
    for (name, begun) in checked {
        for (group, begun) in service_status(stage, name)?.groups.iter().zip(begun) {
            all_selected(&group.outcomes, begun)?;
        }
    }
    Ok(())
}

/// A service, and how many connections each of its addresses had.
type Checked = (&'static str, [u64; 2]);

impl Side {
    fn begin(stage: &Stage, name: &'static str, listen: [&'static str; 2]) -> Result<Self> {
        let addresses = listen.map(ToOwned::to_owned);
        stage.daemon().add_service(name, &addresses)?;
        let label = format!("{name}0");
        let serving = server_in(stage.world.server(), &listening(&label, &listen))?;
        stage.daemon().register(name, serving.pid(), &label)?;
        let load = |listen: &str| -> Result<Load> {
            let port = listen.trim_end_matches(",v6only").rsplit(':').next();
            let port = port.context("a port")?.parse()?;
            let target = if listen.starts_with('[') {
                stage.world.v6(port)
            } else {
                stage.world.v4(port)
            };
            let load = Load::start(stage.world.client(), LoadOptions::churn(vec![target], 2))?;
            ensure!(load.advances_by(20, DEADLINE), "a load under way");
            Ok(load)
        };
        Ok(Self {
            name,
            listen,
            serving,
            loads: [load(listen[0])?, load(listen[1])?],
            spans: Vec::new(),
        })
    }

    fn migrate(&mut self, stage: &Stage, round: u32) -> Result<()> {
        let label = format!("{}{round}", self.name);
        let next = server_in(stage.world.server(), &listening(&label, &self.listen))?;
        let parameters = Migrate {
            service: self.name.to_owned(),
            to_pid: Some(next.pid()),
            label: Some(label.clone()),
            ..Migrate::default()
        };
        let mut switched = None;
        let result = stage.migrate(&parameters, || {
            switched = Some(self.loads.each_ref().map(Load::mark));
        })?;
        ensure!(result.left_behind == 0, "{result:?}");
        std::mem::replace(&mut self.serving, next).exit()?;
        for load in &self.loads {
            ensure!(load.advances_by(20, DEADLINE), "a load that goes on");
        }
        self.spans.push(Span {
            label,
            switched: switched.context("a switch")?,
            next: self.loads.each_ref().map(Load::mark),
        });
        Ok(())
    }

    fn check(self, stage: &Stage) -> Result<Checked> {
        let status = service_status(stage, self.name)?;
        ensure!(status.migration.is_none(), "{status:?}");
        let mut begun = [0; 2];
        for (index, load) in self.loads.into_iter().enumerate() {
            let ledger = load.stop()?.connections;
            ledger.check_complete()?;
            let strayed = ledger.by_label().into_keys().find(|label| {
                let number = label.as_str().strip_prefix(self.name);
                number.is_none_or(|it| it.parse::<u32>().is_err())
            });
            ensure!(strayed.is_none(), "{strayed:?} answered for {}", self.name);
            for span in &self.spans {
                let marks = span.switched[index]..span.next[index];
                let answered = ledger.check_within(marks, tag(&span.label))?;
                ensure!(answered > 0, "nothing went to {}", span.label);
            }
            begun[index] = ledger.begun();
        }
        Ok((self.name, begun))
    }
}

/// While a migration is held up, a second one of the same service is refused; a migration of
/// another service is not, and once the first is through, the second works.
pub(crate) fn one_at_a_time() -> Result<()> {
    const CLIENTS: u32 = 5;
    let stage = Stage::set(World::loopback()?, &[any_v4()])?;
    let ctl = Ctl::of(stage.home())?;
    let old = stage.instance(&v4("v1"))?;
    let _next = stage.instance(&v4("v2"))?;
    let _last = stage.instance(&v4("v3"))?;
    let beside = Side::begin(&stage, "beside", ["0.0.0.0:7001", "[::]:7002,v6only"])?;

    let stands = Stopped::stop(&old)?;
    let patient = LoadOptions {
        step_timeout: PATIENCE,
        ..LoadOptions::churn(vec![stage.world.v4(PORT)], CLIENTS)
    };
    let load = Load::start(stage.world.client(), patient)?;
    until_queued(&stage, SERVICE, "v1", CLIENTS)?;
    let first = Held::begin(&stage, SERVICE, "--to v2")?;

    let second = ctl.run(&format!("--json migrate {SERVICE} --to v3"))?;
    let error = &second.result()?["error"];
    ensure!(
        second.code == 3 && error["reason"] == "migration-under-way",
        "{second:?}"
    );
    let mut beside = beside;
    beside.migrate(&stage, 1)?;
    ensure!(service_status(&stage, SERVICE)?.migration.is_some());

    stands.go_on()?;
    let result: MigrationResult = first.ends("done", 0)?;
    ensure!(result.left_behind == 0, "{result:?}");
    let accepted = u64::from(CLIENTS);
    ensure!(result.accepted_while_draining == accepted, "{result:?}");
    ensure!(load.advances_by(100, DEADLINE), "a load that goes on");
    ctl.done(&format!("migrate {SERVICE} --to v3"))?;
    let mark = load.mark();
    ensure!(load.advances_by(100, DEADLINE), "a load that goes on");

    let ledger = load.stop()?.connections;
    ledger.check_complete()?;
    let afterwards = ledger.begun_since(mark);
    ensure!(afterwards.keys().eq([&tag("v3")]), "{afterwards:?}");
    let from_old = ledger.by_label().get(&tag("v1")).copied();
    ensure!(from_old == Some(accepted), "{from_old:?}");
    check_all([beside], &stage)
}
