//! From what went wrong inside to what the caller is told.

use std::{error::Error, io};

use super::{inspect::InspectError, managed::PerformError};
use crate::{
    api::wire::{Failure, Reason},
    chain::chain,
    domain::{Address, ListenerFault, Refusal, ServiceName},
    steering::SteeringError,
    sys::process::ProcessError,
};

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(Reason {
            reason: refusal.code().to_owned(),
            message: refusal.to_string(),
            hint: refusal.hint(),
        })
    }
}

impl From<InspectError> for Failure {
    fn from(error: InspectError) -> Self {
        match error {
            InspectError::Refused(refusal) => refusal.into(),
            InspectError::Process(ProcessError::NoProcess(pid) | ProcessError::Replaced(pid)) => {
                Refusal::NoProcess(pid).into()
            }
            InspectError::Process(ProcessError::NotPermitted { .. }) => {
                Self::NotPermitted(Reason {
                    reason: "process-not-permitted".to_owned(),
                    message: chain(&error),
                    hint: Some(
                        "reuseportd needs CAP_SYS_PTRACE for other users' processes, and \
                     kernel.yama.ptrace_scope below 3"
                            .to_owned(),
                    ),
                })
            }
            InspectError::OthersProcess { .. } => not_permitted(&error.to_string()),
            InspectError::Process(
                ProcessError::NoDescriptor { .. } | ProcessError::Call { .. },
            )
            | InspectError::SockDiag(_)
            | InspectError::Cgroup(_)
            | InspectError::Socket(_)
            | InspectError::Netns(_)
            | InspectError::Signal(_)
            | InspectError::Shutdown(_) => failed("inspection", &chain(&error), None),
        }
    }
}

/// What a caller is told whose decision could not be performed. `address` is the service's first.
pub(super) fn not_performed(error: &PerformError, address: Option<&Address>) -> Failure {
    if let (PerformError::Steering { effect, .. }, Some(address)) = (error, address)
        && matches!(*effect, "insert" | "attach")
        && error.errno() == Some(libc::EINVAL)
    {
        // The only thing that is wrong with a listening socket that has SO_REUSEPORT set.
        return Refusal::Listener {
            address: address.clone(),
            fault: ListenerFault::NoGroup,
        }
        .into();
    }
    steering(&chain(error), error.errno())
}

/// What a caller is told whose service cannot park.
pub(super) fn not_parked(error: &PerformError) -> Failure {
    let reason = |reason: &str, hint: &str| {
        Failure::Refused(Reason {
            reason: reason.to_owned(),
            message: chain(error),
            hint: Some(hint.to_owned()),
        })
    };
    match error.errno() {
        Some(libc::EADDRINUSE) => reason(
            "parking-address-in-use",
            "a listener without SO_REUSEPORT, or one of another user, has the address",
        ),
        Some(libc::EADDRNOTAVAIL | libc::ENODEV) => reason(
            "parking-address",
            "parking takes an address and a device that are there already",
        ),
        Some(libc::EPERM | libc::EACCES) => failed(
            "parking",
            &chain(error),
            Some("reuseportd needs CAP_CHOWN, CAP_SYS_ADMIN and CAP_NET_BIND_SERVICE to park"),
        ),
        Some(_) | None => failed("parking", &chain(error), None),
    }
}

/// A kernel that resets what a closing listener has cannot take it to a parking listener.
pub(super) fn cannot_park() -> Failure {
    without_migration("parking", "park", "add the service without --park")
}

impl From<SteeringError> for Failure {
    fn from(error: SteeringError) -> Self {
        let errno = error.io_error().and_then(io::Error::raw_os_error);
        steering(&chain(&error), errno)
    }
}

/// A service has been removed, and not all that is pinned of it.
pub(super) fn pins_left(name: &ServiceName, error: &SteeringError) -> Failure {
    failed(
        "pins-left",
        &format!(
            "service {name} is removed, but for its pins: {}",
            chain(error)
        ),
        Some("remove it again; the daemon's next start does so too"),
    )
}

fn steering(message: &str, errno: Option<i32>) -> Failure {
    let hint = match errno {
        Some(libc::EPERM | libc::EACCES) => Some("reuseportd needs CAP_BPF (or root)"),
        Some(libc::ENOSPC | libc::ENOMEM) => {
            Some("the bpffs or the memory for maps is full; fewer `slots` need less")
        }
        Some(_) | None => None,
    };
    failed("steering", message, hint)
}

/// Something went wrong that is nobody's request's fault.
pub(super) fn failed(reason: &str, message: &str, hint: Option<&str>) -> Failure {
    Failure::Failed(Reason {
        reason: reason.to_owned(),
        message: message.to_owned(),
        hint: hint.map(ToOwned::to_owned),
    })
}

/// The caller may not.
pub(super) fn not_permitted(message: &str) -> Failure {
    Failure::NotPermitted(Reason {
        reason: "not-permitted".to_owned(),
        message: message.to_owned(),
        hint: None,
    })
}

/// A parameter that is no name, address, duration or the like.
pub(super) fn bad_parameter(what: &str, why: &dyn Error) -> Failure {
    Failure::Refused(Reason {
        reason: "bad-parameter".to_owned(),
        message: format!("{what}: {}", chain(why)),
        hint: None,
    })
}

/// The program that runs does not say where migrating connections go.
pub(super) fn no_kernel_drain() -> Failure {
    let hint = "`--drain owner` loses nothing here either";
    without_migration("kernel-drain", "drain", hint)
}

fn without_migration(reason: &str, what: &str, hint: &str) -> Failure {
    Failure::Unsupported(Reason {
        reason: reason.to_owned(),
        message: format!(
            "{what}: this kernel does not move connections between listeners \
             (BPF_SK_REUSEPORT_SELECT_OR_MIGRATE, Linux 5.14+)"
        ),
        hint: Some(hint.to_owned()),
    })
}

/// The new instance is gone, and its connections with it.
pub(super) fn target_ended(to: &str) -> Failure {
    failed(
        "target-ended",
        &format!("{to} has ended during the migration, and there was no going back"),
        Some("`reuseportctl status` says who serves now"),
    )
}

/// The daemon stops in the middle of a migration.
pub(super) fn interrupted() -> Failure {
    failed(
        "stopping",
        "the daemon stops: the migration goes on with the next one",
        Some(
            "`reuseportctl status` says how far it has come; asking for it again waits for its end",
        ),
    )
}

/// The service has moved, and nobody knows what sessions its old instances still have.
pub(super) fn not_counted(to: &str, trouble: &str) -> Failure {
    failed(
        "not-counted",
        &format!("{to} serves, nothing was lost, but old sessions cannot be counted: {trouble}"),
        None,
    )
}

/// The service has moved, and its old listeners are still there.
pub(super) fn not_retired(to: &str, trouble: &str) -> Failure {
    failed(
        "not-retired",
        &format!("{to} serves, nothing was lost, but the old listeners stay open: {trouble}"),
        Some("migrate to it again to have them retired"),
    )
}
