//! Network settings of a namespace.

use std::{fs, io, path::PathBuf};

use thiserror::Error;

use crate::sys::netns::{Netns, NetnsError};

/// A setting that cannot be read or made.
#[derive(Debug, Error)]
pub enum SysctlError {
    /// The namespace cannot be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The kernel has no such setting, or does not take the value.
    #[error("sysctl {key}")]
    File {
        /// Which, as `net/ipv4/tcp_syncookies`.
        key: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Sets `key`, such as `net/ipv4/tcp_syncookies`, in that namespace alone.
///
/// # Errors
///
/// Any [`SysctlError`].
pub fn write(netns: &Netns, key: &str, value: &str) -> Result<(), SysctlError> {
    // `/proc/sys/net` shows the namespace of the thread that looks.
    netns
        .enter(|| fs::write(path(key), value))?
        .map_err(|source| file_error(key, source))
}

/// Reads a setting of that namespace.
///
/// # Errors
///
/// Any [`SysctlError`].
pub fn read(netns: &Netns, key: &str) -> Result<String, SysctlError> {
    let text = netns
        .enter(|| fs::read_to_string(path(key)))?
        .map_err(|source| file_error(key, source))?;
    Ok(text.trim_end().to_owned())
}

fn path(key: &str) -> PathBuf {
    PathBuf::from("/proc/sys").join(key)
}

fn file_error(key: &str, source: io::Error) -> SysctlError {
    SysctlError::File {
        key: key.to_owned(),
        source,
    }
}
