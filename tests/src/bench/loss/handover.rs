//! The ways to hand a service over, as operators do it.

use anyhow::{Context, Result};
use reuseport_daemon::{
    api::wire::Migrate,
    lab::{
        fixture::{Fixture, Program},
        load::Protocol,
        server::Options,
        sysctl,
        world::World,
    },
};
use rustix::process::Signal;

use super::passing::Passer;
use crate::{
    haproxy::Haproxy,
    nginx::{self, Nginx},
    stage::{SERVICE, Stage, any_v4, program, tag, v4},
};

const WORKERS: usize = 2;

/// A way to hand over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recipe {
    /// An nginx stops, another one starts.
    StopStart,
    /// Another nginx starts beside the old one (`listen … reuseport`), which then quits.
    BlueGreen,
    /// The same with `tcp_migrate_req` on.
    BlueGreenMigrateReq,
    /// A new haproxy worker takes the listeners over from the old one.
    HaproxyReload,
    /// Somebody holds the listener and passes it to the old server and to the new one.
    SocketPassing,
    /// As [`Recipe::BlueGreen`], with a migration in between.
    Reuseportd,
}

impl Recipe {
    pub(super) const ALL: [Self; 6] = [
        Self::StopStart,
        Self::BlueGreen,
        Self::BlueGreenMigrateReq,
        Self::HaproxyReload,
        Self::SocketPassing,
        Self::Reuseportd,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::StopStart => "nginx, stop and start",
            Self::BlueGreen => "nginx, blue/green with `reuseport`",
            Self::BlueGreenMigrateReq => "the same, `tcp_migrate_req=1`",
            Self::HaproxyReload => "HAProxy, reload",
            Self::SocketPassing => "socket passing",
            Self::Reuseportd => "nginx, blue/green with reuseportd",
        }
    }

    pub(super) fn protocol(self) -> Protocol {
        match self {
            Self::StopStart
            | Self::BlueGreen
            | Self::BlueGreenMigrateReq
            | Self::HaproxyReload
            | Self::Reuseportd => Protocol::Http,
            Self::SocketPassing => Protocol::Lab,
        }
    }
}

/// A service that is handed over in one of these ways.
pub(super) struct Service {
    recipe: Recipe,
    // Before the world that they are in.
    serving: Serving,
    place: Place,
}

enum Serving {
    Nginx(Option<Nginx>),
    Haproxy(Haproxy),
    Passed(Fixture, Passer),
}

enum Place {
    World(World),
    Stage(Box<Stage>),
}

impl Service {
    pub(super) fn start(recipe: Recipe, world: World) -> Result<Self> {
        let place = match recipe {
            Recipe::Reuseportd => Place::Stage(Box::new(Stage::set(world, &[any_v4()])?)),
            Recipe::StopStart
            | Recipe::BlueGreen
            | Recipe::BlueGreenMigrateReq
            | Recipe::HaproxyReload
            | Recipe::SocketPassing => Place::World(world),
        };
        let world = place.world();
        if recipe == Recipe::BlueGreenMigrateReq {
            sysctl::write(world.server(), "net/ipv4/tcp_migrate_req", "1")?;
        }
        let serving = match recipe {
            Recipe::HaproxyReload => {
                let address = any_v4().parse()?;
                Serving::Haproxy(Haproxy::start(world.server(), tag("v0"), &address)?)
            }
            Recipe::SocketPassing => {
                let passer = Passer::listen(world.server(), &any_v4().parse()?)?;
                Serving::Passed(passed(world, &passer, "v0")?, passer)
            }
            Recipe::StopStart
            | Recipe::BlueGreen
            | Recipe::BlueGreenMigrateReq
            | Recipe::Reuseportd => Serving::Nginx(Some(start(world, "v0")?)),
        };
        if let (Place::Stage(stage), Serving::Nginx(Some(nginx))) = (&place, &serving) {
            stage.daemon().register(SERVICE, nginx.pid(), "v0")?;
        }
        Ok(Self {
            recipe,
            serving,
            place,
        })
    }

    pub(super) fn world(&self) -> &World {
        self.place.world()
    }

    /// Lets the next one serve, and returns when the old one has ended.
    pub(super) fn hand_over(&mut self, number: u32) -> Result<()> {
        let label = format!("v{number}");
        let world = self.place.world();
        match &mut self.serving {
            Serving::Haproxy(haproxy) => haproxy.reload(tag(&label)),
            Serving::Passed(old, passer) => {
                let next = passed(world, passer, &label)?;
                std::mem::replace(old, next).exit()?;
                Ok(())
            }
            Serving::Nginx(serving) => {
                let old = serving.take().context("an nginx that serves")?;
                if self.recipe == Recipe::StopStart {
                    old.signal(Signal::QUIT)?;
                    old.exited()?;
                    *serving = Some(start(world, &label)?);
                    return Ok(());
                }
                let next = start(world, &label)?;
                match &self.place {
                    Place::World(_) => old.signal(Signal::QUIT)?,
                    Place::Stage(stage) => migrate(stage, &next, &label)?,
                }
                *serving = Some(next);
                old.exited()
            }
        }
    }
}

impl Place {
    fn world(&self) -> &World {
        match self {
            Self::World(world) => world,
            Self::Stage(stage) => &stage.world,
        }
    }
}

/// A server that has its listener from the passer.
fn passed(world: &World, passer: &Passer, label: &str) -> Result<Fixture> {
    let program = Program {
        path: program("fixture")?,
        arguments: Vec::new(),
    };
    let options = Options {
        passed_by: Some(passer.socket()),
        ..v4(label)
    };
    Ok(Fixture::start(world.server(), &program, &options)?)
}

fn start(world: &World, label: &str) -> Result<Nginx> {
    let options = nginx::Options {
        label: tag(label),
        listen: vec![any_v4().parse()?],
        workers: WORKERS,
    };
    Nginx::start(world.server(), &options)
}

/// Migrates, and lets the old one quit.
fn migrate(stage: &Stage, next: &Nginx, label: &str) -> Result<()> {
    let migrate = Migrate {
        service: SERVICE.to_owned(),
        to_pid: Some(next.pid()),
        label: Some(label.to_owned()),
        retire: Some("signal:QUIT".to_owned()),
        ..Migrate::default()
    };
    stage.migrate(&migrate, || {})?;
    Ok(())
}
