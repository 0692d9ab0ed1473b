//! The two programs, and which of them a group runs.

use std::path::Path;

use aya::programs::{ProgramError, SkReuseport, sk_reuseport::SkReuseportAttachType};
use reuseport_common::names;

use super::SteeringError;

/// Which of the two programs a group runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgramKind {
    /// The one for kernels without listener migration.
    Select,
    /// The one that also says where a closing listener's connections go (Linux 5.14+).
    SelectOrMigrate,
}

impl ProgramKind {
    /// The program's name, in the object and as a pin.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Select => names::SELECT,
            Self::SelectOrMigrate => names::SELECT_OR_MIGRATE,
        }
    }

    fn attach_type(self) -> SkReuseportAttachType {
        match self {
            Self::Select => SkReuseportAttachType::Select,
            Self::SelectOrMigrate => SkReuseportAttachType::SelectOrMigrate,
        }
    }
}

/// What tells a program from an older or newer one: the kernel's digest of its instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edition {
    kind: ProgramKind,
    tag: u64,
}

pub(super) fn edition(program: &SkReuseport, kind: ProgramKind) -> Result<Edition, SteeringError> {
    let info = program.info().map_err(SteeringError::Attach)?;
    let tag = info.tag();
    Ok(Edition { kind, tag })
}

/// The program that is pinned in a group's directory.
pub(super) fn open(directory: &Path) -> Result<(SkReuseport, ProgramKind), SteeringError> {
    let migrating = directory.join(ProgramKind::SelectOrMigrate.as_str());
    let (path, kind) = if migrating.exists() {
        (migrating, ProgramKind::SelectOrMigrate)
    } else {
        let path = directory.join(ProgramKind::Select.as_str());
        (path, ProgramKind::Select)
    };
    let program = SkReuseport::from_pin(&path, kind.attach_type())
        .map_err(|source: ProgramError| SteeringError::OpenProgram { path, source })?;
    Ok((program, kind))
}
