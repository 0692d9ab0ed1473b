//! Getting the control socket: one daemon per path, and no trace of a dead one.

use std::{
    fs::{DirBuilder, File, OpenOptions, Permissions},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType},
};
use thiserror::Error;

use super::StdListener;

/// The control socket cannot be had.
#[derive(Debug, Error)]
pub enum BindError {
    /// Another daemon lives there.
    #[error("another daemon answers on {}", .0.display())]
    InUse(PathBuf),
    /// Something else is there, and is not this daemon's to remove.
    #[error("{} is not a Unix stream socket that listens", .0.display())]
    NotASocket(PathBuf),
    /// A step failed.
    #[error("{step} {}", path.display())]
    Io {
        /// What was tried.
        step: &'static str,
        /// What with.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// A listening control socket.
#[derive(Debug)]
pub(super) struct Bound {
    listener: StdListener,
    place: Place,
}

/// The socket's file, removed when the server ends if it is still the same one.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    inode: (u64, u64),
    /// Held for as long as the socket is ours.
    _lock: File,
}

impl Bound {
    /// The listener, non-blocking, and what keeps its path.
    pub(super) fn into_parts(self) -> io::Result<(StdListener, Place)> {
        self.listener.set_nonblocking(true)?;
        Ok((self.listener, self.place))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if inode(&self.path).is_ok_and(|inode| inode == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Binds and listens at `path`.
pub(super) fn bind(path: &Path) -> Result<Bound, BindError> {
    let failed = |step| {
        move |source: io::Error| BindError::Io {
            step,
            path: path.to_owned(),
            source,
        }
    };
    make_directory(path).map_err(failed("making the directory of"))?;
    let lock = lock(path)?;
    remove_dead(path)?;
    let listener = listen(path).map_err(failed("listening on"))?;
    let inode = inode(path).map_err(failed("looking at"))?;
    std::fs::set_permissions(path, Permissions::from_mode(0o666))
        .map_err(failed("setting the mode of"))?;
    Ok(Bound {
        listener,
        place: Place {
            path: path.to_owned(),
            inode,
            _lock: lock,
        },
    })
}

fn make_directory(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => {
            DirBuilder::new().recursive(true).mode(0o755).create(parent)
        }
        Some(_) | None => Ok(()),
    }
}

/// A lock beside the socket. Without it, two daemons that start together could each find the old
/// socket dead, and the second would remove what the first has just bound.
fn lock(path: &Path) -> Result<File, BindError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let lock_path = PathBuf::from(name);
    let failed = |source| BindError::Io {
        step: "locking",
        path: lock_path.clone(),
        source,
    };
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&lock_path)
        .map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK) => Err(BindError::InUse(path.to_owned())),
        Err(errno) => Err(failed(errno.into())),
    }
}

/// Removes the socket of a daemon that is gone. The lock says that no other reuseportd is alive
/// here; asking the socket itself finds a listener that is somebody else's.
fn remove_dead(path: &Path) -> Result<(), BindError> {
    let failed = |source| BindError::Io {
        step: "replacing",
        path: path.to_owned(),
        source,
    };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(BindError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    let probe = stream_socket().map_err(failed)?;
    let address = SocketAddrUnix::new(path).map_err(|errno| failed(errno.into()))?;
    match rustix::net::connect(&probe, &address) {
        Err(Errno::CONNREFUSED) => std::fs::remove_file(path).map_err(failed),
        // A full queue is a listener that lives.
        Ok(()) | Err(Errno::AGAIN) => Err(BindError::InUse(path.to_owned())),
        Err(Errno::PROTOTYPE) => Err(BindError::NotASocket(path.to_owned())),
        Err(errno) => Err(failed(errno.into())),
    }
}

fn listen(path: &Path) -> io::Result<StdListener> {
    /// Cut down to `net.core.somaxconn` by the kernel.
    const BACKLOG: i32 = 4096;
    let socket = stream_socket()?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(socket.as_fd(), BACKLOG)?;
    Ok(StdListener::from(socket))
}

fn stream_socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    Ok(socket)
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    let found = std::fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

    use super::*;

    fn directory() -> tempfile::TempDir {
        tempfile::tempdir().expect("temporary directory")
    }

    #[test]
    fn anybody_may_connect_and_the_file_goes_with_the_daemon() {
        let directory = directory();
        let path = directory.path().join("run/control");
        let bound = bind(&path).expect("bind");
        let mode = std::fs::metadata(&path).expect("metadata").mode();
        assert_eq!(mode & 0o777, 0o666);
        UnixStream::connect(&path).expect("connect");
        drop(bound);
        assert!(!path.exists());
    }

    #[test]
    fn a_dead_socket_is_replaced() {
        let directory = directory();
        let path = directory.path().join("control");
        drop(UnixListener::bind(&path).expect("the dead one"));
        assert!(path.exists());
        let _bound = bind(&path).expect("bind");
        UnixStream::connect(&path).expect("connect");
    }

    #[test]
    fn a_living_one_is_left_alone() {
        let directory = directory();
        let path = directory.path().join("control");
        let bound = bind(&path).expect("bind");
        assert!(matches!(bind(&path), Err(BindError::InUse(_))));
        UnixStream::connect(&path).expect("the first still answers");
        drop(bound);

        let stranger = UnixListener::bind(&path).expect("somebody else's");
        assert!(matches!(bind(&path), Err(BindError::InUse(_))));
        drop(stranger);
        bind(&path).expect("it is gone now");
    }

    #[test]
    fn what_is_no_stream_socket_is_left_alone() {
        let directory = directory();
        let path = directory.path().join("control");
        std::fs::write(&path, "precious").expect("write");
        assert!(matches!(bind(&path), Err(BindError::NotASocket(_))));
        assert_eq!(std::fs::read(&path).expect("read"), b"precious");
        std::fs::remove_file(&path).expect("remove");
        let _datagram = UnixDatagram::bind(&path).expect("datagram socket");
        assert!(matches!(bind(&path), Err(BindError::NotASocket(_))));
    }

    #[test]
    fn another_daemons_file_is_not_removed() {
        let directory = directory();
        let path = directory.path().join("control");
        let bound = bind(&path).expect("bind");
        std::fs::remove_file(&path).expect("remove");
        let _later = UnixListener::bind(&path).expect("another");
        drop(bound);
        assert!(path.exists());
    }
}
