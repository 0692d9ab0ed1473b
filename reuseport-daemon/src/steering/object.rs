//! The eBPF object: the one that is built in, or the one that `REUSEPORTD_OBJECT` names.

use std::{
    borrow::Cow,
    env, fs,
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use aya::{
    Ebpf, EbpfLoader, include_bytes_aligned,
    programs::{Program, SkReuseport},
};
use reuseport_common::{FIRST_SLOT, names};
use serde::Deserialize;

use super::{
    ProgramKind, SteeringError,
    program::{Edition, edition},
};

/// Names a file to load in place of the object that is built in.
const OBJECT_VARIABLE: &str = "REUSEPORTD_OBJECT";

/// What aya-log's ring buffer takes when nothing is logged: its least, a page.
const QUIET_LOG_BYTES: u32 = 4096;

/// The maps of the object, and the names of their pins.
pub(super) const MAPS: [(&str, &str); 5] = [
    (names::SOCKETS, "sockets"),
    (names::STEERING, "steering"),
    (names::ACTIVE, "active"),
    (names::OUTCOMES, "outcomes"),
    (names::SELECTED, "selected"),
];

static BUILT_IN: &[u8] = include_bytes_aligned!("../../bytecode/reuseport.bpf.o");

/// How much the steering programs log. What is off is removed by the verifier, and what is on needs
/// `CAP_PERFMON` to load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogLevel {
    /// Nothing.
    #[default]
    Off,
    /// Connections that were parked or left to the kernel.
    Warn,
    /// Those that were probed or migrated, too.
    Debug,
}

impl LogLevel {
    /// As `aya_log_common::Level` numbers them.
    fn as_byte(self) -> &'static u8 {
        match self {
            Self::Off => &0,
            Self::Warn => &2,
            Self::Debug => &4,
        }
    }
}

/// Loads the object, once for every group: each has a program and maps of its own, so that the
/// packet path looks nothing up that the group decides.
#[derive(Clone, Debug)]
pub struct Loader {
    object: Cow<'static, [u8]>,
    log: LogLevel,
    /// What loads it with maps of its own.
    afresh: Arc<Mutex<EbpfLoader<'static>>>,
    /// What loads it with maps that are there already: only a newer daemon does.
    onto: Arc<OnceLock<Mutex<EbpfLoader<'static>>>>,
}

impl Loader {
    /// A loader of the object that the environment names, or of the one that is built in.
    ///
    /// # Errors
    ///
    /// [`SteeringError::ReadObject`]
    pub fn from_environment(log: LogLevel) -> Result<Self, SteeringError> {
        let object = match env::var_os(OBJECT_VARIABLE) {
            None => Cow::Borrowed(BUILT_IN),
            Some(path) => {
                let path = PathBuf::from(path);
                let bytes =
                    fs::read(&path).map_err(|source| SteeringError::ReadObject { path, source })?;
                Cow::Owned(bytes)
            }
        };
        Ok(Self {
            object,
            log,
            afresh: Arc::new(loader(log)),
            onto: Arc::default(),
        })
    }

    /// How much the programs that it loads will log.
    #[must_use]
    pub fn log_level(&self) -> LogLevel {
        self.log
    }

    /// Makes a group's maps and loads the better of the two programs that the kernel takes.
    ///
    /// # Errors
    ///
    /// Where the maps cannot be made, or the kernel refuses both programs.
    pub fn load(&self, slots: u32) -> Result<(Ebpf, ProgramKind), SteeringError> {
        self.load_with(&self.afresh, |loader| {
            loader
                .map_max_entries(names::SOCKETS, slots)
                .map_max_entries(names::SELECTED, slots);
        })
    }

    /// The same, with maps that are there already: their names, and where they are pinned.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses both programs.
    pub(super) fn load_onto(
        &self,
        maps: [(&'static str, PathBuf); MAPS.len()],
    ) -> Result<(Ebpf, ProgramKind), SteeringError> {
        let onto = self.onto.get_or_init(|| loader(self.log));
        self.load_with(onto, |loader| {
            for (name, pin) in maps {
                loader.map_pin_path(name, pin);
            }
        })
    }

    /// Which edition of the program it loads.
    ///
    /// # Errors
    ///
    /// As [`Loader::load`].
    pub fn edition(&self) -> Result<Edition, SteeringError> {
        let (mut object, kind) = self.load(FIRST_SLOT + 1)?;
        edition(program(&mut object, kind)?, kind)
    }

    fn load_with(
        &self,
        loader: &Mutex<EbpfLoader<'static>>,
        maps: impl FnOnce(&mut EbpfLoader<'static>),
    ) -> Result<(Ebpf, ProgramKind), SteeringError> {
        let mut loader = loader.lock().unwrap_or_else(PoisonError::into_inner);
        maps(&mut loader);
        let mut object = loader
            .load(&self.object)
            .map_err(SteeringError::LoadObject)?;
        drop(loader);
        // A kernel without listener migration refuses the first one for reading `migrating_sk`
        // (before 5.14: "invalid bpf_context access"). Every other reason to refuse it holds for
        // the second one too, and is reported for that.
        if load_program(&mut object, ProgramKind::SelectOrMigrate).is_ok() {
            return Ok((object, ProgramKind::SelectOrMigrate));
        }
        load_program(&mut object, ProgramKind::Select)?;
        Ok((object, ProgramKind::Select))
    }
}

/// A loader of aya's, to be kept. A new one reads and parses the kernel's own type information, 20 MB
/// and 60 ms, for relocations that this object has none of.
fn loader(log: LogLevel) -> Mutex<EbpfLoader<'static>> {
    let mut loader = EbpfLoader::new();
    loader
        .btf(None)
        .override_global(aya_log::LEVEL, log.as_byte(), false);
    if log == LogLevel::Off {
        loader.map_max_entries("AYA_LOGS", QUIET_LOG_BYTES);
    }
    Mutex::new(loader)
}

fn load_program(object: &mut Ebpf, kind: ProgramKind) -> Result<(), SteeringError> {
    program(object, kind)?
        .load()
        .map_err(|source| SteeringError::LoadProgram {
            name: kind.as_str(),
            source,
        })
}

/// A program of the object.
pub(super) fn program(
    object: &mut Ebpf,
    kind: ProgramKind,
) -> Result<&mut SkReuseport, SteeringError> {
    match object.program_mut(kind.as_str()) {
        Some(Program::SkReuseport(program)) => Ok(program),
        Some(_) | None => Err(SteeringError::Lacks(kind.as_str())),
    }
}
