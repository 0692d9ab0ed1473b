//! The four ways to hand a service over.

use serde::Serialize;

use super::{DemoError, Programs};
use crate::{
    api::wire::Migrate,
    domain::Address,
    lab::{
        daemon::{Daemon, DaemonError, Home},
        fixture::{Fixture, Program},
        server::{Options, Stop},
        sysctl,
        wire::Tag,
        world::World,
    },
};

/// Where the servers listen.
pub(super) const PORT: u16 = 7777;

const SERVICE: &str = "demo";

/// How the old server lets go of the port once the new one listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Recipe {
    /// It closes its listener.
    Close,
    /// It accepts until there is nothing left to accept, then closes.
    DrainClose,
    /// It closes its listener, and `tcp_migrate_req` is on.
    MigrateReq,
    /// `reuseportctl migrate`, then it closes.
    Reuseportd,
}

impl Recipe {
    /// All of them, from the plainest on.
    pub const ALL: [Self; 4] = [
        Self::Close,
        Self::DrainClose,
        Self::MigrateReq,
        Self::Reuseportd,
    ];
}

/// A world with a server in it, and whatever the recipe needs.
#[derive(Debug)]
pub(super) struct Stage {
    recipe: Recipe,
    serving: Fixture,
    generation: u32,
    server: Program,
    // Before the world, which its process is in, and the home, which its places are in.
    daemon: Option<(Daemon, Home)>,
    pub(super) world: World,
}

impl Stage {
    pub(super) fn set(
        recipe: Recipe,
        world: World,
        programs: &Programs,
    ) -> Result<Self, DemoError> {
        let serving = Fixture::start(world.server(), &programs.server, &options(0))?;
        let daemon = match recipe {
            Recipe::Close | Recipe::DrainClose => None,
            Recipe::MigrateReq => {
                sysctl::write(world.server(), "net/ipv4/tcp_migrate_req", "1")?;
                None
            }
            Recipe::Reuseportd => {
                let home = Home::new(&programs.daemon)?;
                let daemon = home.start(world.server())?;
                let listen = [address().to_string()];
                daemon
                    .add_service(SERVICE, &listen)
                    .map_err(DaemonError::from)?;
                daemon
                    .register(SERVICE, serving.pid(), &label(0))
                    .map_err(DaemonError::from)?;
                Some((daemon, home))
            }
        };
        Ok(Self {
            recipe,
            serving,
            generation: 0,
            server: programs.server.clone(),
            daemon,
            world,
        })
    }

    /// Starts a new server, hands over to it, and lets the old one end.
    pub(super) fn hand_over(&mut self) -> Result<(), DemoError> {
        self.generation += 1;
        let next = Fixture::start(self.world.server(), &self.server, &options(self.generation))?;
        let mut old = std::mem::replace(&mut self.serving, next);
        if let Some((daemon, _)) = &self.daemon {
            let migrate = Migrate {
                service: SERVICE.to_owned(),
                to_pid: Some(self.serving.pid()),
                label: Some(label(self.generation)),
                ..Migrate::default()
            };
            daemon.migrate(&migrate, |_| {})?;
        }
        old.stop_listening(match self.recipe {
            Recipe::Close | Recipe::MigrateReq | Recipe::Reuseportd => Stop::Close,
            Recipe::DrainClose => Stop::DrainClose,
        })?;
        old.exit()?;
        Ok(())
    }
}

fn address() -> Address {
    let any = std::net::Ipv4Addr::UNSPECIFIED;
    Address::plain(std::net::SocketAddr::from((any, PORT)))
}

fn label(generation: u32) -> String {
    format!("v{generation}")
}

fn options(generation: u32) -> Options {
    Options::new(Tag::of_number(generation), vec![address()])
}
