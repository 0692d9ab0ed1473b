//! Pinned maps, whatever is in them.

use std::path::{Path, PathBuf};

use aya::{
    Pod,
    maps::{Array, Map, MapData, MapError},
};
use reuseport_common::ABI_VERSION;

use super::SteeringError;

/// `BPF_F_NO_PREALLOC`: a record takes memory when it is written.
pub(super) const NO_PREALLOC: u32 = 1;

/// Opens a pinned map as the type that it should have.
pub(super) fn open<M>(path: &Path) -> Result<M, SteeringError>
where
    M: TryFrom<Map, Error = MapError>,
{
    MapData::from_pin(path)
        .and_then(Map::from_map_data)
        .and_then(M::try_from)
        .map_err(|source| SteeringError::OpenMap {
            path: path.to_owned(),
            source,
        })
}

/// Makes a map of one entry, writes it and pins it.
pub(super) fn create_record<R: Pod>(
    path: PathBuf,
    name: &'static str,
    record: R,
) -> Result<(), SteeringError> {
    let mut map = Array::<_, R>::create(1, 0).map_err(wrap("create", name))?;
    map.set(0, record, 0).map_err(wrap("write", name))?;
    map.pin(&path)
        .map_err(|source| SteeringError::Pin { path, source })
}

pub(super) fn check_abi(path: &Path, found: u32) -> Result<(), SteeringError> {
    if found == ABI_VERSION {
        return Ok(());
    }
    Err(SteeringError::Abi {
        path: path.to_owned(),
        found,
        expected: ABI_VERSION,
    })
}

pub(super) fn wrap(
    verb: &'static str,
    map: &'static str,
) -> impl FnOnce(MapError) -> SteeringError {
    move |source| SteeringError::Map { verb, map, source }
}

pub(super) fn fine_if_absent(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::SyscallError(error))
            if error.io_error.raw_os_error() == Some(libc::ENOENT) =>
        {
            Ok(())
        }
        other => other,
    }
}
