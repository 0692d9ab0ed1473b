//! A stage: servers, a daemon, and where the programs are.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use reuseport_daemon::{
    api::wire::{Migrate, MigrationResult, Progress, ServiceStatus},
    lab::{
        daemon::{Daemon, Home},
        fixture::{Fixture, Program},
        link::LinkOptions,
        server::Options,
        wire::Tag,
        world::World,
    },
};

/// Where `cargo xtask test` says that the programs are.
const BIN_DIR: &str = "REUSEPORTD_BIN_DIR";

/// The service that most scenarios are about.
pub const SERVICE: &str = "game";

/// The port that it listens on.
pub const PORT: u16 = 7777;

/// How long anything may take that should take no time.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// A world with a daemon in it.
#[derive(Debug)]
pub struct Stage {
    // Before the world, which its process is in.
    daemon: Option<Daemon>,
    home: Home,
    /// The world.
    pub world: World,
}

impl Stage {
    /// A daemon beside the servers of `world`, with one service at `listen`.
    ///
    /// # Errors
    ///
    /// Where it cannot be started, or refuses the service.
    pub fn set(world: World, listen: &[String]) -> Result<Self> {
        let stage = Self::bare(world)?;
        stage.daemon().add_service(SERVICE, listen)?;
        Ok(stage)
    }

    /// A daemon without services.
    ///
    /// # Errors
    ///
    /// Where it cannot be started.
    pub fn bare(world: World) -> Result<Self> {
        Self::at(Home::new(&program("reuseportd")?)?, world)
    }

    /// A daemon with a configuration.
    ///
    /// # Errors
    ///
    /// Where it cannot be started.
    pub fn configured(world: World, configuration: &str) -> Result<Self> {
        let home = Home::new(&program("reuseportd")?)?;
        Self::at(home.configured(configuration)?, world)
    }

    fn at(home: Home, world: World) -> Result<Self> {
        let daemon = Some(home.start(world.server())?);
        Ok(Self {
            daemon,
            home,
            world,
        })
    }

    /// The daemon.
    ///
    /// # Panics
    ///
    /// Between the end of one daemon and the start of the next, which no scenario asks for.
    #[must_use]
    pub fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().expect("a running daemon")
    }

    /// The daemon's places.
    #[must_use]
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// Tells the daemon to stop, and lets a new one take up.
    ///
    /// # Errors
    ///
    /// Where either does not do its part.
    pub fn restart_daemon(&mut self) -> Result<()> {
        self.without_daemon(|| Ok(()))
    }

    /// The same, with something to do in between.
    ///
    /// # Errors
    ///
    /// As [`Stage::restart_daemon`], and those of `f`.
    pub fn without_daemon(&mut self, f: impl FnOnce() -> Result<()>) -> Result<()> {
        self.stop_daemon()?;
        f()?;
        self.daemon = Some(self.home.start(self.world.server())?);
        Ok(())
    }

    /// Tells the daemon to stop, and lets a newer one take up, which has another object.
    ///
    /// # Errors
    ///
    /// Where either does not do its part.
    pub fn upgrade_daemon(&mut self, object: &Path) -> Result<()> {
        if let Some(daemon) = self.daemon.take() {
            daemon.stop()?;
        }
        let newer = |command: &mut Command| {
            command.env("REUSEPORTD_OBJECT", object);
        };
        self.daemon = Some(self.home.start_with(self.world.server(), newer)?);
        Ok(())
    }

    /// Kills the daemon on the spot, and lets a new one take up.
    ///
    /// # Errors
    ///
    /// Where either does not do its part.
    pub fn replace_killed_daemon(&mut self) -> Result<()> {
        if let Some(daemon) = self.daemon.take() {
            daemon.kill()?;
        }
        self.daemon = Some(self.home.start(self.world.server())?);
        Ok(())
    }

    /// Tells the daemon to stop, and waits until it has. The world lives on until the stage is
    /// dropped.
    ///
    /// # Errors
    ///
    /// Where it does not end well.
    pub fn stop_daemon(&mut self) -> Result<()> {
        if let Some(daemon) = self.daemon.take() {
            daemon.stop()?;
        }
        Ok(())
    }

    /// Starts a server and waits until it listens.
    ///
    /// # Errors
    ///
    /// Where it does not start.
    pub fn server(&self, options: &Options) -> Result<Fixture> {
        let program = Program {
            path: program("fixture")?,
            arguments: Vec::new(),
        };
        Fixture::start(self.world.server(), &program, options)
            .with_context(|| format!("start {}", options.label))
    }

    /// Starts a server and registers it.
    ///
    /// # Errors
    ///
    /// Where it does not start or is refused.
    pub fn instance(&self, options: &Options) -> Result<Fixture> {
        let server = self.server(options)?;
        self.daemon()
            .register(SERVICE, server.pid(), options.label.as_str())?;
        Ok(server)
    }

    /// Migrates the service to a process, calling `switched` as soon as the switch is reported.
    ///
    /// # Errors
    ///
    /// Where it is refused or fails; a migration that does not end `done` is an error too.
    pub fn migrate_to(
        &self,
        server: &Fixture,
        label: &str,
        switched: impl FnMut(),
    ) -> Result<MigrationResult> {
        let parameters = Migrate {
            service: SERVICE.to_owned(),
            to_pid: Some(server.pid()),
            label: Some(label.to_owned()),
            ..Migrate::default()
        };
        self.migrate(&parameters, switched)
    }

    /// Migrates, calling `switched` as soon as the switch is reported.
    ///
    /// # Errors
    ///
    /// As [`Stage::migrate_to`].
    pub fn migrate(
        &self,
        parameters: &Migrate,
        mut switched: impl FnMut(),
    ) -> Result<MigrationResult> {
        let mut seen = false;
        let result = self.daemon().migrate(parameters, |progress: &Progress| {
            if progress.phase == "switched" && !seen {
                seen = true;
                switched();
            }
        })?;
        ensure!(result.outcome == "done", "{result:?}");
        ensure!(seen, "the switch was not reported");
        Ok(result)
    }

    /// The status of the service.
    ///
    /// # Errors
    ///
    /// Where the daemon does not tell, or does not know it.
    pub fn status(&self) -> Result<ServiceStatus> {
        let services = self.daemon().status()?;
        let ours = services.into_iter().find(|it| it.name == SERVICE);
        ours.context("the service is gone")
    }
}

/// A label.
///
/// # Panics
///
/// Where it is not one.
#[must_use]
pub fn tag(label: &str) -> Tag {
    label.parse().expect("a test's own label")
}

/// A server with `label` on any IPv4 address of the usual port.
///
/// # Panics
///
/// Where `label` is not one.
#[must_use]
pub fn v4(label: &str) -> Options {
    listening(label, &[&any_v4()])
}

/// A server with `label` on these addresses.
///
/// # Panics
///
/// Where `label` or an address is not one.
#[must_use]
pub fn listening(label: &str, listen: &[&str]) -> Options {
    let addresses = listen.iter().map(|it| it.parse().expect("an address"));
    Options::new(tag(label), addresses.collect())
}

/// Any IPv4 address, at the usual port.
#[must_use]
pub fn any_v4() -> String {
    format!("0.0.0.0:{PORT}")
}

/// A round trip of 20 ms.
///
/// # Errors
///
/// Where the world cannot be made.
pub fn far_away() -> Result<World> {
    let link = LinkOptions::with_delay(Duration::from_millis(10));
    Ok(World::linked(link)?)
}

/// One of the project's programs.
///
/// # Errors
///
/// Where nobody said where they are.
pub fn program(name: &str) -> Result<PathBuf> {
    let directory: OsString = env::var_os(BIN_DIR)
        .with_context(|| format!("{BIN_DIR} is not set: run `cargo xtask test`"))?;
    let path = PathBuf::from(directory).join(name);
    ensure!(path.is_file(), "there is no {}", path.display());
    Ok(path)
}
