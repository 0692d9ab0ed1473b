//! Between the domain's types and the records that are kept in maps.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use reuseport_common::{
    ABI_VERSION, AddressRecord, GroupRecord, InstanceRecord, MigrationRecord, NAME_LEN,
    ServiceRecord, SlotRecord,
};
use thiserror::Error;

use crate::domain::{
    Address, Definition, Drain, Generation, Instance, InstanceState, Listener, Migration, Options,
    Phase, ProcessId, Retire, SocketCookie, UnitPattern,
};

/// Room for the name of a unit and a NUL.
pub(super) const UNITS_LEN: usize = 256;

/// What is written in a record, or was to be, makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RecordError {
    /// Not UTF-8, without a NUL, or not a name.
    #[error("{0} is not readable")]
    Text(&'static str),
    /// A number that means nothing.
    #[error("{what} {value} is unknown")]
    Number {
        /// What it should be.
        what: &'static str,
        /// What it is.
        value: u32,
    },
    /// A text that a record has no room for.
    #[error("{what} is longer than {max} bytes")]
    TooLong {
        /// What it is.
        what: &'static str,
        /// The most that fits.
        max: usize,
    },
}

pub(super) fn service_record(
    definition: &Definition,
    newest: Generation,
) -> Result<ServiceRecord, RecordError> {
    Ok(ServiceRecord {
        abi_version: ABI_VERSION,
        owner: definition.owner.0,
        generation: newest.0,
        slots: definition.slots,
        park_timeout_ms: definition
            .park_timeout
            .map_or(0, |it| u64::try_from(it.as_millis()).unwrap_or(u64::MAX)),
        netns: pack(
            "the network namespace",
            definition.netns.as_deref().unwrap_or_default(),
        )?,
    })
}

pub(super) fn netns_of(record: &ServiceRecord) -> Result<Option<String>, RecordError> {
    let netns = unpack("the network namespace", &record.netns)?;
    Ok((!netns.is_empty()).then(|| netns.to_owned()))
}

/// The units that become instances of the service by themselves, in a map of its own, which services
/// without such units do not have.
pub(super) fn units_record(units: &UnitPattern) -> Result<[u8; UNITS_LEN], RecordError> {
    pack("the pattern of units", units.as_str())
}

pub(super) fn units_of(record: &[u8; UNITS_LEN]) -> Result<UnitPattern, RecordError> {
    let what = "the pattern of units";
    unpack(what, record)?
        .parse()
        .map_err(|_| RecordError::Text(what))
}

pub(super) fn park_timeout_of(record: &ServiceRecord) -> Option<Duration> {
    (record.park_timeout_ms > 0).then(|| Duration::from_millis(record.park_timeout_ms))
}

pub(super) fn group_record(
    address: &Address,
    index: usize,
    slots: u32,
) -> Result<GroupRecord, RecordError> {
    let mut ip = [0; 16];
    let family = match address.socket.ip() {
        IpAddr::V4(v4) => {
            ip[..4].copy_from_slice(&v4.octets());
            4
        }
        IpAddr::V6(v6) => {
            ip = v6.octets();
            6
        }
    };
    let what = "the place of a group";
    let index = u32::try_from(index).map_err(|_| RecordError::Number {
        what,
        value: u32::MAX,
    })?;
    Ok(GroupRecord {
        abi_version: ABI_VERSION,
        slots,
        index,
        reserved: 0,
        address: AddressRecord {
            ip,
            device: pack("the device", address.device.as_deref().unwrap_or_default())?,
            port: address.socket.port(),
            family,
            v6only: u8::from(address.v6only),
        },
    })
}

pub(super) fn address_of(record: &AddressRecord) -> Result<Address, RecordError> {
    let ip = match record.family {
        4 => {
            let [a, b, c, d, ..] = record.ip;
            IpAddr::V4(Ipv4Addr::new(a, b, c, d))
        }
        6 => IpAddr::V6(Ipv6Addr::from(record.ip)),
        other => {
            return Err(RecordError::Number {
                what: "address family",
                value: u32::from(other),
            });
        }
    };
    let device = unpack("the device", &record.device)?;
    Ok(Address {
        socket: SocketAddr::new(ip, record.port),
        v6only: record.v6only != 0,
        device: (!device.is_empty()).then(|| device.to_owned()),
    })
}

pub(super) fn instance_record(instance: &Instance) -> Result<InstanceRecord, RecordError> {
    Ok(InstanceRecord {
        start_time: instance.process.start_time,
        pid: instance.process.pid,
        state: match instance.state {
            InstanceState::Standby => 1,
            InstanceState::Serving => 2,
            InstanceState::Draining => 3,
            InstanceState::Retired => 4,
            InstanceState::Gone => 5,
        },
        label: pack::<NAME_LEN>("the label", instance.label.as_str())?,
    })
}

pub(super) fn instance_of(record: &InstanceRecord) -> Result<Instance, RecordError> {
    Ok(Instance {
        label: unpack("the label", &record.label)?
            .parse()
            .map_err(|_| RecordError::Text("the label"))?,
        process: ProcessId {
            pid: record.pid,
            start_time: record.start_time,
        },
        state: match record.state {
            1 => InstanceState::Standby,
            2 => InstanceState::Serving,
            3 => InstanceState::Draining,
            4 => InstanceState::Retired,
            5 => InstanceState::Gone,
            value => return Err(number("instance state", value)),
        },
    })
}

pub(super) fn slot_record(listener: Listener) -> SlotRecord {
    SlotRecord {
        cookie: listener.cookie.0,
        generation: listener.generation.0,
        reserved: 0,
    }
}

pub(super) fn listener_of(record: &SlotRecord) -> Listener {
    Listener {
        cookie: SocketCookie(record.cookie),
        generation: Generation(record.generation),
    }
}

pub(super) fn migration_record(migration: Option<&Migration>) -> MigrationRecord {
    let Some(migration) = migration else {
        return MigrationRecord::default();
    };
    let (retire, signal) = match migration.options.retire {
        Retire::Keep => (1, 0),
        Retire::Shutdown => (2, 0),
        Retire::Signal(signal) => (3, signal),
    };
    MigrationRecord {
        phase: match migration.phase {
            Phase::Staged => 1,
            Phase::Switched | Phase::Handshakes { .. } | Phase::Settling | Phase::Queues { .. } => {
                2
            }
            Phase::Retiring => 3,
        },
        to: migration.to.0,
        drain: match migration.options.drain {
            Drain::Owner => 1,
            Drain::Kernel => 2,
            Drain::Handoff => 3,
        },
        retire,
        signal,
        migrate_req: match migration.options.migrate_req {
            None => 0,
            Some(false) => 1,
            Some(true) => 2,
        },
        deadline_ms: migration.options.deadline_ms,
    }
}

/// The migration that a record tells of. Draining starts over with a grace period and a snapshot:
/// where it had come to is not written down, and starting over is always right. `from` is left
/// empty: the domain finds it from the instances' states.
pub(super) fn migration_of(record: &MigrationRecord) -> Result<Option<Migration>, RecordError> {
    let phase = match record.phase {
        0 => return Ok(None),
        1 => Phase::Staged,
        2 => Phase::Switched,
        3 => Phase::Retiring,
        value => return Err(number("migration phase", value)),
    };
    let drain = match record.drain {
        1 => Drain::Owner,
        2 => Drain::Kernel,
        3 => Drain::Handoff,
        value => return Err(number("drain strategy", value)),
    };
    let retire = match record.retire {
        1 => Retire::Keep,
        2 => Retire::Shutdown,
        3 => Retire::Signal(record.signal),
        value => return Err(number("retire mode", value)),
    };
    let migrate_req = match record.migrate_req {
        0 => None,
        1 => Some(false),
        2 => Some(true),
        value => return Err(number("state of tcp_migrate_req", value)),
    };
    Ok(Some(Migration {
        from: Vec::new(),
        to: Generation(record.to),
        options: Options {
            drain,
            retire,
            deadline_ms: record.deadline_ms,
            migrate_req,
        },
        phase,
        tally: None,
    }))
}

fn number(what: &'static str, value: u32) -> RecordError {
    RecordError::Number { what, value }
}

/// Text, padded with at least one NUL.
fn pack<const N: usize>(what: &'static str, text: &str) -> Result<[u8; N], RecordError> {
    let mut bytes = [0; N];
    if text.len() >= N || text.contains('\0') {
        return Err(RecordError::TooLong { what, max: N - 1 });
    }
    bytes[..text.len()].copy_from_slice(text.as_bytes());
    Ok(bytes)
}

fn unpack<'a>(what: &'static str, bytes: &'a [u8]) -> Result<&'a str, RecordError> {
    let end = bytes.iter().position(|byte| *byte == 0);
    end.and_then(|end| std::str::from_utf8(&bytes[..end]).ok())
        .ok_or(RecordError::Text(what))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Uid;

    #[test]
    fn addresses_and_instances_come_back_as_they_were() {
        for text in ["127.0.0.1:80", "[2001:db8::1]:443,v6only,device=eth0"] {
            let address: Address = text.parse().expect("address");
            let record = group_record(&address, 3, 64).expect("fits");
            assert_eq!(address_of(&record.address), Ok(address));
        }
        for state in [
            InstanceState::Standby,
            InstanceState::Serving,
            InstanceState::Draining,
            InstanceState::Retired,
            InstanceState::Gone,
        ] {
            let instance = Instance {
                label: "v2".parse().expect("label"),
                process: ProcessId {
                    pid: 7,
                    start_time: 9,
                },
                state,
            };
            let record = instance_record(&instance).expect("fits");
            assert_eq!(instance_of(&record), Ok(instance));
        }
    }

    #[test]
    fn what_the_operator_said_of_parking_comes_back() {
        for (park, timeout) in [
            (false, None),
            (true, None),
            (true, Some(1)),
            (true, Some(90_001)),
        ] {
            let definition = Definition::checked(
                "game".parse().expect("name"),
                vec!["127.0.0.1:80".parse().expect("address")],
                Uid(7),
                None,
                None,
            );
            let definition = definition
                .and_then(|it| it.parking(park, timeout.map(Duration::from_millis)))
                .expect("sense");
            let record = service_record(&definition, Generation(3)).expect("fits");
            assert_eq!(park_timeout_of(&record), definition.park_timeout);
            assert_eq!(definition.park_timeout.is_some(), park);
        }
    }

    #[test]
    fn a_pattern_of_units_comes_back() {
        for text in ["game@*.service", &format!("{}.service", "x".repeat(247))] {
            let units: UnitPattern = text.parse().expect(text);
            let record = units_record(&units).expect("fits");
            assert_eq!(units_of(&record), Ok(units));
        }
        assert!(units_of(&[0; UNITS_LEN]).is_err());
    }

    #[test]
    fn a_migration_comes_back_at_the_start_of_its_phase() {
        for (drain, retire, migrate_req) in [
            (Drain::Owner, Retire::Keep, None),
            (Drain::Kernel, Retire::Shutdown, Some(false)),
            (Drain::Handoff, Retire::Signal(3), Some(true)),
        ] {
            let migration = Migration {
                from: Vec::new(),
                to: Generation(4),
                options: Options {
                    drain,
                    retire,
                    deadline_ms: 17,
                    migrate_req,
                },
                phase: Phase::Settling,
                tally: None,
            };
            let back = migration_of(&migration_record(Some(&migration)));
            let expected = Migration {
                phase: Phase::Switched,
                ..migration
            };
            assert_eq!(back, Ok(Some(expected)));
        }
        assert_eq!(migration_of(&migration_record(None)), Ok(None));
    }

    #[test]
    fn what_nobody_wrote_is_an_error() {
        let record = MigrationRecord {
            phase: 9,
            ..MigrationRecord::default()
        };
        assert!(migration_of(&record).is_err());
        assert!(unpack("text", &[b'x'; 4]).is_err());
        assert!(pack::<4>("text", "four").is_err());
        assert!(pack::<4>("text", "a\0b").is_err());
    }
}
