//! Refusals leave no trace: a table of everything that can be asked wrongly. Each row gets its own
//! reason and exit code; after each, what the daemon shows and holds is as before, and the clients
//! of the service beside it have noticed nothing.

mod calls;
mod cast;
mod commands;
mod listeners;
mod row;

use std::{
    collections::BTreeMap,
    fs::Permissions,
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use reuseport_daemon::{
    api::wire::Status,
    lab::{
        load::{Load, LoadOptions},
        world::World,
    },
};
use reuseport_tests::{
    ctl::Ctl,
    held::{Held, Stopped, until_queued},
    outcomes::all_selected,
    people::NOBODY,
    sockets,
    stage::{DEADLINE, PORT, Stage, any_v4, tag, v4},
    traces::Traces,
};

use self::{
    cast::Cast,
    listeners::Descriptors,
    row::{Asked, Row, Said},
};

pub(crate) fn leave_no_trace() -> Result<()> {
    let stage = Stage::set(World::loopback()?, &[any_v4()])?;
    let _serving = stage.instance(&v4("v1"))?;
    let _standby = stage.instance(&v4("v2"))?;
    open_to_everybody(&stage)?;
    let cast = Cast::gather(&stage)?;

    let gentle = LoadOptions {
        pause: Duration::from_millis(1),
        ..LoadOptions::churn(vec![stage.world.v4(PORT)], 4)
    };
    let load = Load::start(stage.world.client(), gentle)?;
    ensure!(load.advances_by(100, DEADLINE), "a load under way");

    let mut table = Table::new(&stage, &load);
    table.check(commands::rows(&cast))?;
    table.check(commands::rows_of_others(&cast))?;
    let descriptors = Descriptors::make(&stage, &cast)?;
    table.check(descriptors.rows(&cast))?;
    table.check(calls::rows())?;
    {
        let stands = Stopped::stop(&cast.held[0])?;
        let waiting = sockets::connected(stage.world.client(), cast::held_address())?;
        until_queued(&stage, "held", "h1", 1)?;
        let migration = Held::begin(&stage, "held", "--to h2")?;
        table.held = 1;
        table.check(commands::rows_while_held(&cast))?;
        table.held = 0;
        stands.go_on()?;
        migration.ends("done", 0)?;
        drop(waiting);
    }
    table.check(commands::rows_afterwards())?;
    table.sum_up()?;
    others_see_their_own(&stage)?;

    let report = load.stop()?;
    let ledger = &report.connections;
    ledger.check_complete()?;
    ensure!(
        ledger
            .by_label()
            .into_iter()
            .eq([(tag("v1"), ledger.begun())])
    );
    let outcomes = &stage.status()?.groups[0].outcomes;
    all_selected(outcomes, ledger.begun())
}

/// Lets other users into the directory of the daemon's socket, as they are into `/run/reuseportd`.
fn open_to_everybody(stage: &Stage) -> Result<()> {
    let socket = stage.home().socket();
    let directory = socket.parent().context("a directory")?;
    Ok(std::fs::set_permissions(
        directory,
        Permissions::from_mode(0o711),
    )?)
}

/// A user's status shows that user's services, and no more.
fn others_see_their_own(stage: &Stage) -> Result<()> {
    let ctl = Ctl::of(stage.home())?.run_by(NOBODY);
    let status: Status = serde_json::from_str(&ctl.done("--json status")?)?;
    let names: Vec<&str> = status.services.iter().map(|it| it.name.as_str()).collect();
    ensure!(names == ["owned"], "{names:?}");
    ctl.done("status owned")?;
    Ok(())
}

/// The rows so far, and what they are checked against.
struct Table<'a> {
    stage: &'a Stage,
    load: &'a Load,
    /// The cause of every reason and message that was told.
    told: BTreeMap<Said, &'static str>,
    codes: BTreeMap<i32, usize>,
    rows: usize,
    /// Migrations that are under way.
    held: usize,
    failures: Vec<String>,
}

impl<'a> Table<'a> {
    fn new(stage: &'a Stage, load: &'a Load) -> Self {
        Self {
            stage,
            load,
            told: BTreeMap::new(),
            codes: BTreeMap::new(),
            rows: 0,
            held: 0,
            failures: Vec::new(),
        }
    }

    /// Checks every row, whatever came of those before.
    fn check(&mut self, rows: Vec<Row<'_>>) -> Result<()> {
        let before = Traces::beside(self.stage, self.held)?;
        for row in rows {
            if let Err(error) = self.check_one(&row, &before) {
                let (cause, asked) = (row.cause, row.asked());
                self.failures.push(format!("{cause} ({asked}): {error:#}"));
            }
        }
        Ok(())
    }

    fn check_one(&mut self, row: &Row<'_>, before: &Traces) -> Result<()> {
        let Asked { said, code } = row.ask(self.stage)?;
        let told_for = *self.told.entry(said.clone()).or_insert(row.cause);
        ensure!(
            told_for == row.cause,
            "told the same as for {told_for}: {said:?}"
        );
        if let Some(code) = code {
            *self.codes.entry(code).or_default() += 1;
        }
        self.rows += 1;
        let after = Traces::beside(self.stage, self.held)?;
        ensure!(after == *before, "{before:?} became {after:?}");
        ensure!(self.load.advances_by(1, DEADLINE), "the load stands");
        let progress = self.load.progress();
        ensure!(progress.lost == 0, "{progress:?}");
        Ok(())
    }

    fn sum_up(&self) -> Result<()> {
        let _ = writeln!(
            io::stderr(),
            "{} rows, {} different answers, exit codes {:?}",
            self.rows,
            self.told.len(),
            self.codes,
        );
        ensure!(self.failures.is_empty(), "{}", self.failures.join("\n"));
        // 4 is for kernels that lack what is asked for, which the one that this runs on may not.
        for code in [1, 2, 3, 6, 7] {
            ensure!(self.codes.contains_key(&code), "exit code {code} not seen");
        }
        Ok(())
    }
}
