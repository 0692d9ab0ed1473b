//! `net.ipv4.tcp_migrate_req`: whether the kernel moves a closing listener's connections by itself,
//! where no program says where to.
//! <https://elixir.bootlin.com/linux/v6.18/source/Documentation/networking/ip-sysctl.rst>

use std::{fs, io};

use thiserror::Error;

use super::netstat::{NetstatError, TcpCounters};

/// The kernel resolves it in the network namespace of the thread that opens it.
const FILE: &str = "/proc/sys/net/ipv4/tcp_migrate_req";

/// The sysctl could not be read or written.
#[derive(Debug, Error)]
pub enum MigrateReqError {
    /// It is there and cannot be read.
    #[error("{FILE} cannot be read")]
    Read(#[source] io::Error),
    /// Something other than 0 or 1.
    #[error("{FILE} reads {0:?}")]
    Format(String),
    /// It cannot be written: it takes root in the namespace's user namespace, and a `/proc/sys`
    /// that is not mounted read-only.
    #[error("{FILE} cannot be written")]
    Write(#[source] io::Error),
}

/// Whether the sysctl is on in the calling thread's network namespace; nothing where the kernel
/// does not have it.
///
/// # Errors
///
/// When it is there and cannot be read.
pub fn read() -> Result<Option<bool>, MigrateReqError> {
    match fs::read_to_string(FILE) {
        Ok(text) => parse(&text).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(MigrateReqError::Read(error)),
    }
}

/// Turns the sysctl of the calling thread's network namespace on or off. Whether that does anything
/// is for [`supported`] to say.
///
/// # Errors
///
/// When the kernel does not have it, or this process may not write it.
pub fn set(on: bool) -> Result<(), MigrateReqError> {
    fs::write(FILE, if on { "1\n" } else { "0\n" }).map_err(MigrateReqError::Write)
}

/// Whether this kernel can move a listener's connections. The sysctl's presence proves nothing:
/// Linux 5.10.188 and later have it without the feature. The counters came with the feature itself.
///
/// # Errors
///
/// When the counters cannot be read.
pub fn supported() -> Result<bool, NetstatError> {
    Ok(TcpCounters::read()?.migrated.is_some())
}

fn parse(text: &str) -> Result<bool, MigrateReqError> {
    match text.trim_end() {
        "0" => Ok(false),
        "1" => Ok(true),
        other => Err(MigrateReqError::Format(other.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_as_a_switch() {
        assert!(parse("1\n").expect("on"));
        assert!(!parse("0\n").expect("off"));
        assert!(matches!(parse("2\n"), Err(MigrateReqError::Format(text)) if text == "2"));
    }

    #[test]
    fn a_kernel_with_the_feature_has_the_switch() {
        if supported().expect("counters") {
            assert!(read().expect("the switch").is_some());
        }
    }
}
