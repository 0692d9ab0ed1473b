//! `reuseportctl demo`: four ways to hand a service over, side by side, in a world of their own.
//!
//! Everything real, nothing left behind: network namespaces that end with their last user, servers
//! and a daemon that are this program's children, and a bpffs in a directory that is removed.

mod recipe;

use std::{
    env,
    ffi::OsString,
    io,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use serde::Serialize;
use thiserror::Error;

pub use self::recipe::Recipe;
use self::recipe::{PORT, Stage};
use crate::lab::{
    daemon::DaemonError,
    fixture::{FixtureError, Program},
    link::LinkOptions,
    load::{Load, LoadError, LoadOptions},
    sysctl::SysctlError,
    world::{World, WorldError},
};

/// One way over the link; a round trip takes twice that.
const DELAY: Duration = Duration::from_millis(10);

/// How long the load may take to make a few connections, on the busiest machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// How much is to be shown.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How many handovers for each cell of the table.
    pub migrations: u32,
    /// How many clients connect at a time.
    pub clients: u32,
    /// How long all of it may take.
    pub time: Duration,
}

/// How far the clients are from the servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Distance {
    /// In the same namespace: a handshake is over before `connect` returns.
    Loopback,
    /// A round trip of 20 ms away: handshakes are half-open most of the time.
    Link20Ms,
}

impl Distance {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Loopback, Self::Link20Ms];

    fn world(self) -> Result<World, WorldError> {
        match self {
            Self::Loopback => World::loopback(),
            Self::Link20Ms => World::linked(LinkOptions::with_delay(DELAY)),
        }
    }
}

/// One cell of the table, finished or under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Cell {
    /// How the service was handed over.
    pub recipe: Recipe,
    /// How far away the clients were.
    pub distance: Distance,
    /// How many handovers there were.
    pub migrations: u32,
    /// How many connections the clients made meanwhile.
    pub connections: u64,
    /// How many of those were not answered.
    pub lost: u64,
}

/// What stands in the way of a demo.
#[derive(Debug, Error)]
pub enum DemoError {
    /// It makes namespaces and loads eBPF programs.
    #[error("the demo needs root")]
    NotRoot,
    /// The daemon is not beside this program.
    #[error("there is no reuseportd at {}", .0.display())]
    NoDaemon(PathBuf),
    /// This program does not know where it is.
    #[error("cannot find this program")]
    NoProgram(#[source] io::Error),
    /// The namespaces or the link.
    #[error(transparent)]
    World(#[from] WorldError),
    /// A server.
    #[error(transparent)]
    Server(#[from] FixtureError),
    /// The daemon.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// A setting of the servers' namespace.
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
    /// The clients.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The clients do not get on.
    #[error("the clients make no more connections")]
    Stuck,
}

/// Where the programs are that the demo runs.
#[derive(Clone, Debug)]
pub struct Programs {
    server: Program,
    daemon: PathBuf,
}

impl Programs {
    /// This program, which is the server too if it is called with `server_command`, and the daemon
    /// beside it.
    ///
    /// # Errors
    ///
    /// [`DemoError::NotRoot`], [`DemoError::NoDaemon`], [`DemoError::NoProgram`]
    pub fn beside_this_one(server_command: &str) -> Result<Self, DemoError> {
        if !rustix::process::geteuid().is_root() {
            return Err(DemoError::NotRoot);
        }
        let path = env::current_exe().map_err(DemoError::NoProgram)?;
        let daemon = path.with_file_name("reuseportd");
        if !daemon.is_file() {
            return Err(DemoError::NoDaemon(daemon));
        }
        let arguments = vec![OsString::from(server_command)];
        Ok(Self {
            server: Program { path, arguments },
            daemon,
        })
    }
}

/// Runs the demo and returns the table's cells; `tell` is called with each as it grows. Once
/// `cancelled` is set, what is under way is ended in good order, and the cells so far are returned.
///
/// # Errors
///
/// [`DemoError`]
pub fn run(
    plan: &Plan,
    programs: &Programs,
    cancelled: &AtomicBool,
    mut tell: impl FnMut(Cell),
) -> Result<Vec<Cell>, DemoError> {
    let begun = Instant::now();
    let all = Recipe::ALL.len() * Distance::ALL.len();
    let mut cells = Vec::with_capacity(all);
    for recipe in Recipe::ALL {
        for distance in Distance::ALL {
            if cancelled.load(Ordering::Relaxed) {
                return Ok(cells);
            }
            // What one cell leaves of its share is for those after it.
            let left = plan.time.saturating_sub(begun.elapsed());
            let share = left / u32::try_from(all - cells.len()).unwrap_or(1);
            let cell = Trial {
                plan,
                programs,
                cancelled,
                end: Instant::now() + share,
            };
            cells.push(cell.run(recipe, distance, &mut tell)?);
        }
    }
    Ok(cells)
}

/// One cell in the making.
struct Trial<'a> {
    plan: &'a Plan,
    programs: &'a Programs,
    cancelled: &'a AtomicBool,
    end: Instant,
}

impl Trial<'_> {
    fn run(
        &self,
        recipe: Recipe,
        distance: Distance,
        tell: &mut impl FnMut(Cell),
    ) -> Result<Cell, DemoError> {
        let mut stage = Stage::set(recipe, distance.world()?, self.programs)?;
        let target = stage.world.v4(PORT);
        let churn = LoadOptions::churn(vec![target], self.plan.clients);
        let load = Load::start(stage.world.client(), churn)?;
        let mut cell = Cell {
            recipe,
            distance,
            migrations: 0,
            connections: 0,
            lost: 0,
        };
        // Between two handovers every client has finished what it had begun, and begun anew.
        let enough = u64::from(self.plan.clients) * 2;
        loop {
            if !load.advances_by(enough, PATIENCE) {
                return Err(DemoError::Stuck);
            }
            let progress = load.progress();
            cell.connections = progress.answered + progress.lost;
            cell.lost = progress.lost;
            tell(cell);
            let over = cell.migrations >= self.plan.migrations
                || Instant::now() >= self.end
                || self.cancelled.load(Ordering::Relaxed);
            if over {
                break;
            }
            stage.hand_over()?;
            cell.migrations += 1;
        }
        let ledger = load.stop()?.connections;
        cell.connections = ledger.begun();
        // Whatever was not answered, settled or not.
        cell.lost = ledger.begun() - ledger.answered();
        Ok(cell)
    }
}
