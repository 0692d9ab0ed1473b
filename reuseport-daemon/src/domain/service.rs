//! What is known of a service: its groups, its instances, and the migration that is under way.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    ops::RangeInclusive,
    time::Duration,
};

use reuseport_common::{DEFAULT_SLOTS, FIRST_SLOT, MAX_SLOTS, SteeringTable};

use super::{
    Address, Generation, Group, Label, Migration, Parking, ProcessId, Refusal, ServiceName,
    SocketCookie, TableCopy, Uid, UnitPattern, group::is_deaf,
};

/// What the operator says a service is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// Its name.
    pub name: ServiceName,
    /// Where it listens; one group each.
    pub addresses: Vec<Address>,
    /// The user that owns its sockets.
    pub owner: Uid,
    /// Path of its network namespace; the daemon's where there is none.
    pub netns: Option<String>,
    /// How many slots each group has, the parking slot included.
    pub slots: u32,
    /// How long connections wait while nobody serves; none where they do not wait at all.
    pub park_timeout: Option<Duration>,
    /// Units that become instances by themselves; none where instances only come as they are told to.
    pub instances: Option<UnitPattern>,
}

impl Definition {
    /// How many slots a group can have: the parking slot, and at least one listener.
    pub const SLOTS: RangeInclusive<u32> = FIRST_SLOT + 1..=MAX_SLOTS;

    /// How long connections wait while nobody serves, unless the operator says otherwise.
    pub const PARK_TIMEOUT: Duration = Duration::from_secs(30);

    /// A definition that makes sense, of a service that does not park.
    ///
    /// # Errors
    ///
    /// [`Refusal::Addresses`] or [`Refusal::Slots`]
    pub fn checked(
        name: ServiceName,
        addresses: Vec<Address>,
        owner: Uid,
        netns: Option<String>,
        slots: Option<u32>,
    ) -> Result<Self, Refusal> {
        let distinct: BTreeSet<&Address> = addresses.iter().collect();
        if addresses.is_empty() {
            return Err(Refusal::Addresses(
                "a service needs an address to listen on",
            ));
        }
        if distinct.len() < addresses.len() {
            return Err(Refusal::Addresses("an address is given twice"));
        }
        let slots = slots.unwrap_or(DEFAULT_SLOTS);
        if !Self::SLOTS.contains(&slots) {
            return Err(Refusal::Slots(slots));
        }
        Ok(Self {
            name,
            addresses,
            owner,
            netns,
            slots,
            park_timeout: None,
            instances: None,
        })
    }

    /// The same service, which parks if it is to.
    ///
    /// # Errors
    ///
    /// [`Refusal::Park`]
    pub fn parking(mut self, park: bool, timeout: Option<Duration>) -> Result<Self, Refusal> {
        self.park_timeout = match (park, timeout) {
            (false, None) => None,
            (false, Some(_)) => {
                return Err(Refusal::Park(
                    "a time to wait goes with a service that parks",
                ));
            }
            (true, timeout) => Some(timeout.unwrap_or(Self::PARK_TIMEOUT)),
        };
        if self.park_timeout.is_some_and(|it| it.as_millis() == 0) {
            return Err(Refusal::Park("connections cannot wait for no time at all"));
        }
        Ok(self)
    }

    /// The same service, to which units of that pattern come by themselves.
    #[must_use]
    pub fn of_units(mut self, instances: Option<UnitPattern>) -> Self {
        self.instances = instances;
        self
    }

    /// Which setting tells the two apart, if any.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Option<&'static str> {
        let set = |definition: &Self| -> BTreeSet<Address> {
            definition.addresses.iter().cloned().collect()
        };
        if set(self) != set(other) {
            Some("set of addresses")
        } else if self.owner != other.owner {
            Some("user")
        } else if self.netns != other.netns {
            Some("network namespace")
        } else if self.slots != other.slots {
            Some("number of slots")
        } else if self.park_timeout != other.park_timeout {
            Some("way to park")
        } else if self.instances != other.instances {
            Some("pattern of units")
        } else {
            None
        }
    }
}

/// A service and everything in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// What the operator said.
    pub definition: Definition,
    /// The newest generation; 0 before the first.
    pub newest: Generation,
    /// In the order of the definition's addresses.
    pub groups: Vec<Group>,
    /// Every instance that is known.
    pub instances: BTreeMap<Generation, Instance>,
    /// The migration that is under way.
    pub migration: Option<Migration>,
}

/// One running copy of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// What the operator calls it.
    pub label: Label,
    /// The process that it is.
    pub process: ProcessId,
    /// What it does for the service.
    pub state: InstanceState,
}

/// What an instance does for its service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstanceState {
    /// Its listeners are in the map, and no bucket names them.
    Standby,
    /// The steering table names its listeners.
    Serving,
    /// It has been moved away from, and may have connections that it has not accepted yet.
    Draining,
    /// It has been moved away from and drained.
    Retired,
    /// Its process ended while it served.
    Gone,
}

impl InstanceState {
    /// The word in `status`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Standby => "standby",
            Self::Serving => "serving",
            Self::Draining => "draining",
            Self::Retired => "retired",
            Self::Gone => "gone",
        }
    }
}

impl Service {
    /// A service without instances.
    #[must_use]
    pub fn new(definition: Definition) -> Self {
        let groups = definition
            .addresses
            .iter()
            .map(|address| Group {
                address: address.clone(),
                slots: BTreeMap::new(),
                active: TableCopy::First,
                table: Box::new(SteeringTable::EMPTY),
                parking: Parking::Closed,
            })
            .collect();
        Self {
            definition,
            newest: Generation(0),
            groups,
            instances: BTreeMap::new(),
            migration: None,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &ServiceName {
        &self.definition.name
    }

    /// Generations of the instances in `state`, oldest first.
    #[must_use]
    pub fn in_state(&self, state: InstanceState) -> impl DoubleEndedIterator<Item = Generation> {
        self.instances
            .iter()
            .filter(move |(_, instance)| instance.state == state)
            .map(|(generation, _)| *generation)
    }

    /// The instance of that label.
    ///
    /// # Errors
    ///
    /// [`Refusal::UnknownInstance`]
    pub fn find(&self, label: &Label) -> Result<Generation, Refusal> {
        self.instances
            .iter()
            .find(|(_, instance)| instance.label == *label)
            .map(|(generation, _)| *generation)
            .ok_or_else(|| Refusal::UnknownInstance {
                service: self.name().clone(),
                label: label.clone(),
            })
    }

    /// The instance that nobody else can be called like. The label of one that is gone is free.
    #[must_use]
    pub fn holder_of(&self, label: &Label) -> Option<(Generation, &Instance)> {
        let mut instances = self.instances.iter();
        instances
            .find(|(_, it)| it.label == *label && it.state != InstanceState::Gone)
            .map(|(generation, instance)| (*generation, instance))
    }

    /// The instance that is that process.
    #[must_use]
    pub fn find_process(&self, process: ProcessId) -> Option<Generation> {
        self.instances
            .iter()
            .find(|(_, instance)| instance.process == process)
            .map(|(generation, _)| *generation)
    }

    /// An instance's listeners, each with the index of its group.
    pub fn listeners_of(
        &self,
        generation: Generation,
    ) -> impl Iterator<Item = (SocketCookie, usize)> {
        let groups = self.groups.iter().enumerate();
        groups.flat_map(move |(index, group)| {
            let ours = group.slots.values();
            ours.filter(move |listener| listener.generation == generation)
                .map(move |listener| (listener.cookie, index))
        })
    }

    /// Whether an instance is known and, as far as is known, runs.
    #[must_use]
    pub fn lives(&self, generation: Generation) -> bool {
        self.instances
            .get(&generation)
            .is_some_and(|it| it.state != InstanceState::Gone)
    }

    /// The first address at which an instance has no listener in a slot.
    #[must_use]
    pub fn uncovered(&self, generation: Generation) -> Option<&Address> {
        self.groups
            .iter()
            .find(|group| group.slots_of(generation).is_empty())
            .map(|group| &group.address)
    }

    /// The first address at which too few of an instance's listeners are among those that listen.
    #[must_use]
    pub fn deaf_at(
        &self,
        generation: Generation,
        listening: &HashSet<SocketCookie>,
    ) -> Option<&Address> {
        let deaf = |group: &&Group| {
            let ours = group
                .slots
                .values()
                .filter(|it| it.generation == generation);
            is_deaf(&ours.map(|it| it.cookie).collect(), listening)
        };
        self.groups.iter().find(deaf).map(|group| &group.address)
    }

    /// The label of an instance; one that is unknown goes by its number.
    #[must_use]
    pub fn label(&self, generation: Generation) -> Label {
        self.instances
            .get(&generation)
            .map_or_else(|| Label::of_generation(generation), |it| it.label.clone())
    }

    /// Refuses while a migration is under way.
    ///
    /// # Errors
    ///
    /// [`Refusal::MigrationUnderWay`]
    pub fn check_idle(&self) -> Result<(), Refusal> {
        match &self.migration {
            None => Ok(()),
            Some(migration) => Err(Refusal::MigrationUnderWay {
                service: self.name().clone(),
                to: self.label(migration.to),
            }),
        }
    }
}
