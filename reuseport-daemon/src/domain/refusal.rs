//! Why a request is refused. A refusal has changed nothing, and says what to change.

use thiserror::Error;

use super::{
    Address, Definition, Label, ListenerFault, ServiceName, Setting, UnitName, UnknownSetting,
};

/// A request that cannot be granted as things stand.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// No service of that name.
    #[error("there is no service {0}")]
    UnknownService(ServiceName),
    /// The service is there already, and differs.
    #[error("service {name} exists with another {what}")]
    ServiceDiffers {
        /// The service.
        name: ServiceName,
        /// Which setting differs.
        what: &'static str,
    },
    /// An earlier daemon left the service, and this one could not take it up.
    #[error("service {name} is pinned, and could not be taken up: {reason}")]
    LeftAlone {
        /// The service.
        name: ServiceName,
        /// Why.
        reason: String,
    },
    /// A service without an address, or with the same one twice.
    #[error("{0}")]
    Addresses(&'static str),
    /// Too few slots for one listener, or more than the tables can name.
    #[error(
        "{0} slots are not between {low} and {high}",
        low = Definition::SLOTS.start(),
        high = Definition::SLOTS.end()
    )]
    Slots(u32),
    /// Parking that makes no sense.
    #[error("{0}")]
    Park(&'static str),
    /// Two services cannot steer one group.
    #[error("{address} belongs to service {owner} already")]
    AddressTaken {
        /// The address.
        address: Address,
        /// The service that has it.
        owner: ServiceName,
    },
    /// One migration of a service at a time.
    #[error("service {service} is being migrated to {to}")]
    MigrationUnderWay {
        /// The service.
        service: ServiceName,
        /// Where it goes.
        to: Label,
    },
    /// No instance of that label.
    #[error("service {service} has no instance {label}")]
    UnknownInstance {
        /// The service.
        service: ServiceName,
        /// The label asked for.
        label: Label,
    },
    /// Another process has the label.
    #[error("label {label} belongs to pid {pid}")]
    LabelTaken {
        /// The label.
        label: Label,
        /// Who has it.
        pid: u32,
    },
    /// The process is an instance already, under another label.
    #[error("pid {pid} is registered as {label} already")]
    LabelDiffers {
        /// The process.
        pid: u32,
        /// Its label.
        label: Label,
    },
    /// The instance's process has ended.
    #[error("instance {0} is gone")]
    InstanceGone(Label),
    /// Its listeners have been shut down or closed, all or so many that connections might not find one.
    #[error("instance {label} has no listener on {address}, or few of those that it had")]
    NoListener {
        /// The instance.
        label: Label,
        /// The service's address.
        address: Address,
    },
    /// What serves cannot be forgotten.
    #[error("instance {0} serves")]
    InstanceServes(Label),
    /// A migration moves away from it.
    #[error("instance {0} is being drained")]
    InstanceDrains(Label),
    /// Nobody would take the connections that the daemon hands over.
    #[error("instance {0} has no receiver")]
    NoReceiver(Label),
    /// A service has room for only so many.
    #[error("service {0} has as many receivers as it may have")]
    TooManyReceivers(ServiceName),
    /// No migration is under way, so there is nothing to go back from.
    #[error("no migration of service {0} is under way")]
    NothingToRollBack(ServiceName),
    /// Whoever served before the migration has ended.
    #[error("no instance is left that service {0} could go back to")]
    OriginGone(ServiceName),
    /// The old listeners are being retired.
    #[error("the old listeners of service {0} are retired already")]
    Retired(ServiceName),
    /// Every number that an instance could get has been given.
    #[error("service {0} has had as many instances as it can number")]
    GenerationsSpent(ServiceName),
    /// The group's map is full.
    #[error("{address} has {free} free slots of {slots}, and {need} listeners want one")]
    SlotsFull {
        /// The group.
        address: Address,
        /// Listeners to place.
        need: usize,
        /// Slots that are free.
        free: usize,
        /// Slots that there are.
        slots: u32,
    },
    /// Nothing runs under that pid.
    #[error("there is no process {0}")]
    NoProcess(u32),
    /// The daemon has listeners at the service's addresses too, which serve nobody.
    #[error("pid {0} is reuseportd itself")]
    OwnProcess(u32),
    /// The process that connected to the control socket has ended, or cannot be seen by the daemon.
    #[error("the process that connected has ended, or is not visible to the daemon")]
    CallerGone,
    /// No control group of that name.
    #[error("there is no unit {0}, or it is not running")]
    UnknownUnit(UnitName),
    /// None of the unit's processes has a listener at an address of the service.
    #[error("no process of {unit} listens on {}", list(.addresses))]
    UnitNotListening {
        /// The unit.
        unit: UnitName,
        /// The service's addresses.
        addresses: Vec<Address>,
    },
    /// Several of the unit's processes listen, each with listeners of its own.
    #[error("several processes of {unit} have listeners of their own: {}", list(.pids))]
    UnitAmbiguous {
        /// The unit.
        unit: UnitName,
        /// The processes.
        pids: Vec<u32>,
    },
    /// A migration that says none of label, pid and unit, or more than one.
    #[error("a migration goes either to the label of an instance, to a pid or to a unit")]
    Target,
    /// New listeners are set to what no listener of those that serve is set to.
    #[error("{setting} of the new listeners on {address} is {new}, and of those that serve {old}")]
    SettingsDiffer {
        /// Where they listen.
        address: Address,
        /// What differs.
        setting: Setting,
        /// What those that serve are set to.
        old: String,
        /// What the new ones are set to.
        new: String,
        /// Other settings that differ as much.
        also: Vec<Setting>,
    },
    /// A name that no setting has.
    #[error(transparent)]
    UnknownSetting(#[from] UnknownSetting),
    /// A word that means nothing there.
    #[error("{0} cannot be {1:?}")]
    Word(&'static str, String),
    /// The process has no listener at an address of the service.
    #[error("pid {pid} does not listen on {address}{}", listens_on(.found))]
    NotListening {
        /// The process.
        pid: u32,
        /// The service's address.
        address: Address,
        /// Where it does listen.
        found: Vec<Address>,
    },
    /// The passed descriptors leave out an address of the service.
    #[error("no listener was passed for {0}")]
    NotPassed(Address),
    /// A `Register` call that says none of pid, unit and descriptors, or more than one.
    #[error("a registration takes either a pid, a unit or descriptors")]
    PidOrDescriptors,
    /// More descriptors in one call than the daemon takes.
    #[error("{got} descriptors were passed, and at most {max} are taken")]
    TooManyDescriptors {
        /// How many came; the kernel may have dropped more.
        got: usize,
        /// The most that one call may carry.
        max: usize,
    },
    /// The instance cannot take over, being the one that was passed.
    #[error("the listener on {address} is not fit: {fault}")]
    Listener {
        /// The service's address that it was meant for, or the first one.
        address: Address,
        /// What is wrong with it.
        fault: ListenerFault,
    },
}

fn listens_on(found: &[Address]) -> String {
    if found.is_empty() {
        return ", nor on any other TCP address of the service's network namespace".to_owned();
    }
    format!(", but on {}", list(found))
}

fn list(found: &[impl ToString]) -> String {
    let list: Vec<String> = found.iter().map(ToString::to_string).collect();
    list.join(" and ")
}

impl Refusal {
    /// A short name for programs, never changed once released.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownService(_) => "unknown-service",
            Self::ServiceDiffers { .. } => "service-differs",
            Self::LeftAlone { .. } => "left-alone",
            Self::Addresses(_) => "addresses",
            Self::Slots(_) => "slots",
            Self::Park(_) => "park",
            Self::AddressTaken { .. } => "address-taken",
            Self::MigrationUnderWay { .. } => "migration-under-way",
            Self::UnknownInstance { .. } => "unknown-instance",
            Self::LabelTaken { .. } => "label-taken",
            Self::LabelDiffers { .. } => "label-differs",
            Self::InstanceGone(_) => "instance-gone",
            Self::NoListener { .. } => "no-listener",
            Self::InstanceServes(_) => "instance-serves",
            Self::InstanceDrains(_) => "instance-drains",
            Self::NoReceiver(_) => "no-receiver",
            Self::TooManyReceivers(_) => "too-many-receivers",
            Self::NothingToRollBack(_) => "nothing-to-roll-back",
            Self::OriginGone(_) => "origin-gone",
            Self::Retired(_) => "retired",
            Self::GenerationsSpent(_) => "generations-spent",
            Self::SlotsFull { .. } => "slots-full",
            Self::NoProcess(_) => "no-process",
            Self::OwnProcess(_) => "own-process",
            Self::CallerGone => "caller-gone",
            Self::UnknownUnit(_) => "unknown-unit",
            Self::UnitNotListening { .. } => "unit-not-listening",
            Self::UnitAmbiguous { .. } => "unit-ambiguous",
            Self::Target => "target",
            Self::SettingsDiffer { .. } => "settings-differ",
            Self::UnknownSetting(_) => "unknown-setting",
            Self::Word(..) => "unknown-word",
            Self::NotListening { .. } => "not-listening-there",
            Self::NotPassed(_) => "not-passed",
            Self::PidOrDescriptors => "pid-or-descriptors",
            Self::TooManyDescriptors { .. } => "too-many-descriptors",
            Self::Listener { fault, .. } => fault.code(),
        }
    }

    /// What the operator can do about it, where that is not plain from the message.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::GenerationsSpent(name) => Some(format!(
                "`reuseportctl service remove {name}`, then add it again"
            )),
            Self::UnknownService(name) => Some(format!(
                "`reuseportctl service add {name} --listen ADDR` makes it"
            )),
            Self::ServiceDiffers { name, .. } | Self::LeftAlone { name, .. } => Some(format!(
                "`reuseportctl service remove {name}` first, if that is what you want"
            )),
            Self::MigrationUnderWay { service, .. } => {
                Some(format!("wait for it, or `reuseportctl rollback {service}`"))
            }
            Self::UnknownInstance { service, .. } => {
                Some(format!("`reuseportctl status {service}` lists them"))
            }
            Self::LabelTaken { .. } => Some("choose another --label".to_owned()),
            Self::NoListener { .. } => {
                Some("let it listen again and register it once more".to_owned())
            }
            Self::InstanceServes(_) => {
                Some("migrate the service to another instance first".to_owned())
            }
            Self::NoReceiver(_) => Some(
                "a process of the new server has to call `Receive` on the control socket first"
                    .to_owned(),
            ),
            Self::Retired(service) | Self::NothingToRollBack(service) => Some(format!(
                "`reuseportctl migrate {service} --to LABEL` goes back while the old instance lives"
            )),
            Self::SlotsFull { .. } => Some(
                "release instances that are gone, or give the service more slots (`slots` in the \
                 configuration)"
                    .to_owned(),
            ),
            Self::NotListening { found, address, .. } => found
                .iter()
                .find(|found| found.socket == address.socket)
                .map(|found| {
                    format!(
                        "the kernel keeps {found} and {address} apart; give the service --listen \
                         '{found}'"
                    )
                }),
            Self::SettingsDiffer { setting, also, .. } => {
                let all = [*setting].into_iter().chain(also.iter().copied());
                let options: Vec<String> = all.map(|it| format!("--allow-mismatch {it}")).collect();
                Some(format!(
                    "let the new server set the same, or migrate with `{}`",
                    options.join(" ")
                ))
            }
            Self::UnknownUnit(unit) => Some(format!("`systemctl status {unit}` says what it does")),
            Self::UnitAmbiguous { .. } => {
                Some("register each with --pid, under a label of its own".to_owned())
            }
            Self::Listener { fault, .. } => fault.hint(),
            Self::Addresses(_)
            | Self::UnitNotListening { .. }
            | Self::CallerGone
            | Self::OwnProcess(_)
            | Self::Target
            | Self::UnknownSetting(_)
            | Self::Word(..)
            | Self::Slots(_)
            | Self::Park(_)
            | Self::AddressTaken { .. }
            | Self::LabelDiffers { .. }
            | Self::InstanceGone(_)
            | Self::OriginGone(_)
            | Self::InstanceDrains(_)
            | Self::TooManyReceivers(_)
            | Self::NoProcess(_)
            | Self::NotPassed(_)
            | Self::PidOrDescriptors
            | Self::TooManyDescriptors { .. } => None,
        }
    }
}
