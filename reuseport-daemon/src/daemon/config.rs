//! The configuration file.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Deserializer, de};
use thiserror::Error;

use super::MigrateReq;
use crate::{
    domain::{Address, Definition, NameError, Refusal, ServiceName, Uid, UnitError},
    steering::LogLevel,
    sys::users::{self, UserError},
};

/// Where it is unless the command line says otherwise. It need not be there.
const PATH: &str = "/etc/reuseportd/reuseportd.toml";

/// What the file says. Everything may be left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// What is logged, in the words of `tracing_subscriber::EnvFilter`.
    pub log: Option<String>,
    /// What the eBPF programs log: `off`, `warn` or `debug`.
    #[serde(default)]
    pub bpf_log: LogLevel,
    /// What is done about `tcp_migrate_req`: `leave`, `on` or `during-migration`.
    #[serde(default)]
    pub migrate_req: MigrateReq,
    /// The services, by name.
    #[serde(default)]
    pub service: BTreeMap<String, ServiceConfig>,
}

/// A service.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ServiceConfig {
    /// Where it listens.
    pub listen: Vec<String>,
    /// The user that owns its sockets; root where it is left out.
    pub user: Option<String>,
    /// Path of its network namespace; the daemon's where it is left out.
    pub netns: Option<String>,
    /// How many slots a group has: one more than the listeners that it can hold, old and new together.
    pub slots: Option<u32>,
    /// Whether connections wait while nobody serves.
    #[serde(default)]
    pub park: bool,
    /// For how long they wait, such as `30s`, which is what it is where it is left out.
    #[serde(default, deserialize_with = "duration")]
    pub park_timeout: Option<Duration>,
    /// Units that become instances by themselves, such as `game@*.service`.
    pub instances: Option<String>,
}

/// A service of the file that makes sense, whoever its user is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configured {
    /// Root's, until it is known whose.
    definition: Definition,
    user: Option<String>,
}

/// A file that cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// It is not readable.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is not what it should be. The message has line and caret.
    #[error("cannot use {path}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A service's name.
    #[error("service {name:?}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        #[source]
        source: NameError,
    },
    /// One of a service's addresses.
    #[error("service {name}")]
    Address {
        /// The service.
        name: ServiceName,
        /// What is wrong.
        #[source]
        source: crate::domain::AddressError,
    },
    /// A service's units.
    #[error("service {name}: instances {pattern:?}")]
    Instances {
        /// The service.
        name: ServiceName,
        /// What should be names of units.
        pattern: String,
        /// What is wrong with it.
        #[source]
        source: UnitError,
    },
    /// A service that makes no sense as a whole.
    #[error("service {name}")]
    Service {
        /// The service.
        name: ServiceName,
        /// What is wrong.
        #[source]
        source: Refusal,
    },
}

impl Config {
    /// Reads the file at `path`, or the usual one, which need not exist.
    ///
    /// # Errors
    ///
    /// [`ConfigError`]
    pub fn read(path: Option<&Path>) -> Result<Self, ConfigError> {
        let required = path.is_some();
        let path = path.unwrap_or(Path::new(PATH));
        match fs::read_to_string(path) {
            Ok(text) => Self::parse(&text, path),
            Err(error) if error.kind() == io::ErrorKind::NotFound && !required => {
                Ok(Self::default())
            }
            Err(source) => Err(ConfigError::Read {
                path: path.to_owned(),
                source,
            }),
        }
    }

    fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|source| ConfigError::Parse {
            path: path.to_owned(),
            source: Box::new(source),
        })
    }

    /// The services that it defines.
    ///
    /// # Errors
    ///
    /// The first that makes no sense.
    pub fn services(&self) -> Result<Vec<Configured>, ConfigError> {
        let services = self.service.iter();
        services
            .map(|(name, service)| service.checked(name))
            .collect()
    }
}

impl Configured {
    /// The service's name.
    #[must_use]
    pub fn name(&self) -> &ServiceName {
        &self.definition.name
    }

    /// The service, with its user as the user database has it now.
    ///
    /// # Errors
    ///
    /// Where its user cannot be found.
    pub fn definition(&self) -> Result<Definition, UserError> {
        let mut definition = self.definition.clone();
        if let Some(user) = &self.user {
            definition.owner = users::resolve(user)?;
        }
        Ok(definition)
    }
}

impl ServiceConfig {
    fn checked(&self, name: &str) -> Result<Configured, ConfigError> {
        let name: ServiceName = name.parse().map_err(|source| ConfigError::Name {
            name: name.to_owned(),
            source,
        })?;
        let addresses: Result<Vec<Address>, _> = self.listen.iter().map(|it| it.parse()).collect();
        let addresses = addresses.map_err(|source| ConfigError::Address {
            name: name.clone(),
            source,
        })?;
        let instances = self.instances.as_deref();
        let instances = instances.map(|pattern| {
            let wrong = |source| ConfigError::Instances {
                name: name.clone(),
                pattern: pattern.to_owned(),
                source,
            };
            pattern.parse().map_err(wrong)
        });
        let instances = instances.transpose()?;
        let netns = self.netns.clone();
        let definition = Definition::checked(name.clone(), addresses, Uid(0), netns, self.slots)
            .and_then(|it| it.parking(self.park, self.park_timeout))
            .map(|it| it.of_units(instances))
            .map_err(|source| ConfigError::Service { name, source })?;
        Ok(Configured {
            definition,
            user: self.user.clone(),
        })
    }
}

/// A duration such as `30s` or `1m 30s`.
fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(from)?;
    match humantime::parse_duration(&text) {
        Ok(duration) => Ok(Some(duration)),
        Err(error) => Err(de::Error::custom(format!("{error}, such as 30s or 1m30s"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::chain;

    fn parse(text: &str) -> Result<Vec<Configured>, ConfigError> {
        Config::parse(text, Path::new("test.toml"))?.services()
    }

    #[test]
    fn a_service_is_what_the_file_says() {
        let services = parse(
            r#"
            log = "debug"
            bpf-log = "warn"
            migrate-req = "during-migration"
            [service.game]
            listen = ["0.0.0.0:7777", "[::]:7777,v6only"]
            user = "1000"
            slots = 64
            park = true
            park-timeout = "1m 30s"
            instances = "game@*"
            "#,
        )
        .expect("valid");
        let [game] = services.as_slice() else {
            panic!("one service");
        };
        let game = game.definition().expect("a number is a user");
        assert_eq!(game.name.as_str(), "game");
        assert_eq!(game.owner, Uid(1000));
        assert_eq!(game.addresses.len(), 2);
        assert_eq!(game.slots, 64);
        assert_eq!(game.park_timeout, Some(Duration::from_secs(90)));
        let instances = game.instances.as_ref().map(ToString::to_string);
        assert_eq!(instances.as_deref(), Some("game@*.service"));
    }

    #[test]
    fn an_empty_file_is_fine_and_one_that_was_named_is_there() {
        assert_eq!(parse("").expect("empty").len(), 0);
        assert!(Config::read(Some(Path::new("/nonexistent.toml"))).is_err());
    }

    #[test]
    fn mistakes_are_shown_where_they_are() {
        let error = |text: &str| chain(&parse(text).expect_err(text));
        let unknown = error("[service.game]\nlisten = []\nport = 5\n");
        assert!(unknown.contains("line 3"), "{unknown}");
        assert!(unknown.contains("^^^^"), "{unknown}");
        assert!(error("bpf-log = \"loud\"").contains("loud"));
        assert!(error("migrate-req = \"off\"").contains("during-migration"));
        assert!(error("[service.game]\nlisten = []\n").contains("needs an address"));
        assert!(error("[service.game]\nlisten = [\"x\"]\n").contains("IP:PORT"));
        assert!(error("[service.\"a b\"]\nlisten = [\"1.2.3.4:5\"]\n").contains("a b"));
        let units = "[service.game]\nlisten = [\"1.2.3.4:5\"]\ninstances = \"a b\"\n";
        assert!(error(units).contains("a b"));
        let slots = "[service.game]\nlisten = [\"1.2.3.4:5\"]\nslots = 1\n";
        assert!(error(slots).contains("slots"));
        let park = |text: &str| error(&format!("[service.game]\nlisten = [\"1.2.3.4:5\"]\n{text}"));
        let soon = park("park = true\npark-timeout = \"soon\"\n");
        assert!(
            soon.contains("such as 30s") && soon.contains("line 4"),
            "{soon}"
        );
        assert!(park("park-timeout = \"30s\"\n").contains("goes with"));
        assert!(park("park = true\npark-timeout = \"0s\"\n").contains("no time at all"));
    }

    #[test]
    fn a_user_may_come_later() {
        let text = "[service.game]\nlisten = [\"1.2.3.4:5\"]\nuser = \"no such user\"\n";
        let services = parse(text).expect("valid");
        let [game] = services.as_slice() else {
            panic!("one service");
        };
        let error = game.definition().expect_err("no user").to_string();
        assert!(error.contains("no such user"), "{error}");
    }
}
