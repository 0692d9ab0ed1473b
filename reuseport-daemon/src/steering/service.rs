//! One service's maps: its groups', and what is known of its instances and its migration.

use std::{collections::BTreeMap, fmt, fs, path::Path};

use aya::maps::{Array, HashMap, MapData};
use reuseport_common::{InstanceRecord, MigrationRecord, ServiceRecord};

use super::{
    GroupMaps, Loader, Runs, SteeringError,
    maps::{self, NO_PREALLOC, check_abi, create_record, fine_if_absent, wrap},
    records::{
        RecordError, UNITS_LEN, instance_of, instance_record, migration_of, migration_record,
        netns_of, park_timeout_of, service_record, units_of, units_record,
    },
};
use crate::domain::{
    Definition, Generation, Instance, Migration, Service, ServiceName, Uid, UnitPattern,
};

const SERVICE: &str = "service";
const INSTANCES: &str = "instances";
const MIGRATION: &str = "migration";
const UNITS: &str = "units";

/// How many instances a service can have at a time.
const MAX_INSTANCES: u32 = 256;

/// A service's maps.
pub struct ServiceMaps {
    service: Array<MapData, ServiceRecord>,
    instances: HashMap<MapData, u32, InstanceRecord>,
    migration: Array<MapData, MigrationRecord>,
    groups: Vec<GroupMaps>,
}

impl fmt::Debug for ServiceMaps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceMaps")
            .field("groups", &self.groups)
            .finish_non_exhaustive()
    }
}

impl ServiceMaps {
    /// Makes a service's maps, loads its programs, and pins all of it in `directory`, which exists
    /// and is empty.
    pub(super) fn create(
        loader: &Loader,
        directory: &Path,
        definition: &Definition,
    ) -> Result<(), SteeringError> {
        for (index, address) in definition.addresses.iter().enumerate() {
            let group = directory.join(address.directory());
            fs::create_dir(&group).map_err(|source| SteeringError::Path {
                verb: "create",
                path: group.clone(),
                source,
            })?;
            GroupMaps::create(loader, &group, address, index, definition.slots)?;
        }
        let path = directory.join(INSTANCES);
        HashMap::<_, u32, InstanceRecord>::create(MAX_INSTANCES, NO_PREALLOC)
            .map_err(wrap("create", INSTANCES))?
            .pin(&path)
            .map_err(|source| SteeringError::Pin { path, source })?;
        create_record(
            directory.join(MIGRATION),
            MIGRATION,
            MigrationRecord::default(),
        )?;
        if let Some(units) = &definition.instances {
            let path = directory.join(UNITS);
            let record = units_record(units).map_err(|source| record_error(&path, source))?;
            create_record(path, UNITS, record)?;
        }
        let path = directory.join(SERVICE);
        let record = service_record(definition, Generation(0))
            .map_err(|source| record_error(&path, source))?;
        create_record(path, SERVICE, record)
    }

    /// Opens what is pinned in `directory`, and reads the service as it was left.
    pub(super) fn open(
        name: &ServiceName,
        directory: &Path,
    ) -> Result<(Self, Service), SteeringError> {
        let path = directory.join(SERVICE);
        let service: Array<_, ServiceRecord> = maps::open(&path)?;
        let record = service.get(&0, 0).map_err(wrap("read", SERVICE))?;
        check_abi(&path, record.abi_version)?;

        let mut groups = Vec::new();
        for entry in super::pins::directories(directory)? {
            groups.push(GroupMaps::open(&entry)?);
        }
        groups.sort_by_key(|(_, _, index)| *index);
        let (groups, states): (Vec<_>, Vec<_>) = groups
            .into_iter()
            .map(|(maps, state, _)| (maps, state))
            .unzip();

        let maps = Self {
            service,
            instances: maps::open(&directory.join(INSTANCES))?,
            migration: maps::open(&directory.join(MIGRATION))?,
            groups,
        };
        let definition = Definition {
            name: name.clone(),
            addresses: states.iter().map(|it| it.address.clone()).collect(),
            owner: Uid(record.owner),
            netns: netns_of(&record).map_err(|source| record_error(&path, source))?,
            slots: record.slots,
            park_timeout: park_timeout_of(&record),
            instances: read_units(&directory.join(UNITS))?,
        };
        let state = Service {
            groups: states,
            newest: Generation(record.generation),
            instances: maps.read_instances(directory)?,
            migration: maps.read_migration(directory)?,
            ..Service::new(definition)
        };
        Ok((maps, state))
    }

    fn read_instances(
        &self,
        directory: &Path,
    ) -> Result<BTreeMap<Generation, Instance>, SteeringError> {
        self.instances
            .iter()
            .map(|entry| {
                let (generation, record) = entry.map_err(wrap("read", INSTANCES))?;
                let instance = instance_of(&record)
                    .map_err(|source| record_error(&directory.join(INSTANCES), source))?;
                Ok((Generation(generation), instance))
            })
            .collect()
    }

    fn read_migration(&self, directory: &Path) -> Result<Option<Migration>, SteeringError> {
        let record = self.migration.get(&0, 0).map_err(wrap("read", MIGRATION))?;
        migration_of(&record).map_err(|source| record_error(&directory.join(MIGRATION), source))
    }

    /// Its groups, in the order of its addresses.
    #[must_use]
    pub fn groups(&self) -> &[GroupMaps] {
        &self.groups
    }

    /// A group, to be changed.
    ///
    /// # Errors
    ///
    /// [`SteeringError::NoGroup`]
    pub fn group_mut(&mut self, index: usize) -> Result<&mut GroupMaps, SteeringError> {
        self.groups
            .get_mut(index)
            .ok_or(SteeringError::NoGroup(index))
    }

    /// Writes the newest generation.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses.
    pub fn record_generation(&mut self, newest: Generation) -> Result<(), SteeringError> {
        let mut record = self.service.get(&0, 0).map_err(wrap("read", SERVICE))?;
        record.generation = newest.0;
        self.service
            .set(0, record, 0)
            .map_err(wrap("write", SERVICE))
    }

    /// Writes what an instance is.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses: `E2BIG` where there are too many.
    pub fn record_instance(
        &mut self,
        generation: Generation,
        instance: &Instance,
    ) -> Result<(), SteeringError> {
        let record = instance_record(instance)
            .map_err(|source| record_error(Path::new(INSTANCES), source))?;
        self.instances
            .insert(generation.0, record, 0)
            .map_err(wrap("write", INSTANCES))
    }

    /// Forgets an instance. One that is not there is fine.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses.
    pub fn forget_instance(&mut self, generation: Generation) -> Result<(), SteeringError> {
        fine_if_absent(self.instances.remove(&generation.0)).map_err(wrap("clear", INSTANCES))
    }

    /// Writes the migration that is under way, or that there is none.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses.
    pub fn record_migration(&mut self, migration: Option<&Migration>) -> Result<(), SteeringError> {
        self.migration
            .set(0, migration_record(migration), 0)
            .map_err(wrap("write", MIGRATION))
    }

    /// How often all its programs ran since they were loaded.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses.
    pub fn runs(&self) -> Result<Runs, SteeringError> {
        self.groups
            .iter()
            .try_fold(Runs::default(), |sum, group| Ok(sum.plus(&group.runs()?)))
    }
}

fn read_units(path: &Path) -> Result<Option<UnitPattern>, SteeringError> {
    if !path.exists() {
        return Ok(None);
    }
    let map: Array<_, [u8; UNITS_LEN]> = maps::open(path)?;
    let record = map.get(&0, 0).map_err(wrap("read", UNITS))?;
    let units = units_of(&record).map_err(|source| record_error(path, source))?;
    Ok(Some(units))
}

fn record_error(path: &Path, source: RecordError) -> SteeringError {
    SteeringError::Record {
        path: path.to_owned(),
        source,
    }
}
