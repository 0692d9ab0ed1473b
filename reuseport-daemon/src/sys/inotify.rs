//! Directories in which others are made, and files that change.

use std::{io, mem::MaybeUninit, os::fd::OwnedFd, path::Path};

use rustix::{
    fs::inotify::{CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init, remove_watch},
    io::Errno,
};
use tokio::io::unix::AsyncFd;

use super::readiness;

/// Room for some changes: each takes 16 bytes and a name.
const BUFFER: usize = 4096;

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WatchId(i32);

/// Something has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A directory of that name has been made in a directory.
    Made(WatchId, String),
    /// A file has changed.
    Changed(WatchId),
    /// What was watched is gone.
    Gone(WatchId),
    /// More has happened than the kernel keeps.
    Overflow,
}

/// Watches some of them.
#[derive(Debug)]
pub struct Inotify(AsyncFd<OwnedFd>);

impl Inotify {
    /// Watches nothing yet.
    ///
    /// # Errors
    ///
    /// Where the user has as many as `fs.inotify.max_user_instances`.
    ///
    /// # Panics
    ///
    /// Outside of a runtime.
    pub fn new() -> io::Result<Self> {
        let fd = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        Ok(Self(readiness::readable(fd)?))
    }

    /// Tells of directories that are made in the directory `path`.
    ///
    /// # Errors
    ///
    /// Where it is not there, or may not be watched.
    pub fn directory(&self, path: &Path) -> io::Result<WatchId> {
        let flags = WatchFlags::CREATE | WatchFlags::ONLYDIR;
        Ok(WatchId(add_watch(self.0.get_ref(), path, flags)?))
    }

    /// Tells when the file `path` changes.
    ///
    /// # Errors
    ///
    /// Where it is not there, or may not be watched.
    pub fn file(&self, path: &Path) -> io::Result<WatchId> {
        Ok(WatchId(add_watch(
            self.0.get_ref(),
            path,
            WatchFlags::MODIFY,
        )?))
    }

    /// Watches something no longer. The kernel says of a control group that is removed neither this nor
    /// anything else (`kernfs_remove`, <https://elixir.bootlin.com/linux/v6.18/source/fs/kernfs/dir.c>).
    pub fn forget(&self, watch: WatchId) {
        // An error says that it is not watched.
        let _ = remove_watch(self.0.get_ref(), watch.0);
    }

    /// Waits until something happens, and tells all that has.
    ///
    /// # Errors
    ///
    /// Where the kernel cannot tell.
    pub async fn changes(&self) -> io::Result<Vec<Change>> {
        loop {
            let mut ready = self.0.readable().await?;
            let changes = read(self.0.get_ref())?;
            if changes.is_empty() {
                ready.clear_ready();
            } else {
                return Ok(changes);
            }
        }
    }
}

/// Everything that can be read at once.
fn read(fd: &OwnedFd) -> io::Result<Vec<Change>> {
    let mut buffer = [MaybeUninit::uninit(); BUFFER];
    let mut reader = Reader::new(fd, &mut buffer);
    let mut changes = Vec::new();
    loop {
        let event = match reader.next() {
            Ok(event) => event,
            Err(Errno::AGAIN) => return Ok(changes),
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
        let (watch, what) = (WatchId(event.wd()), event.events());
        if what.contains(ReadFlags::QUEUE_OVERFLOW) {
            changes.push(Change::Overflow);
        } else if what.contains(ReadFlags::IGNORED) {
            changes.push(Change::Gone(watch));
        } else if what.contains(ReadFlags::CREATE | ReadFlags::ISDIR) {
            let name = event.file_name().and_then(|it| it.to_str().ok());
            changes.extend(name.map(|it| Change::Made(watch, it.to_owned())));
        } else if what.contains(ReadFlags::MODIFY) {
            changes.push(Change::Changed(watch));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use tokio::time::timeout;

    use super::*;

    async fn next(inotify: &Inotify) -> Vec<Change> {
        let changes = timeout(Duration::from_secs(10), inotify.changes()).await;
        changes.expect("in time").expect("changes")
    }

    #[tokio::test]
    async fn directories_and_changes_are_told_and_nothing_else() {
        let place = tempfile::tempdir().expect("a directory");
        let (inner, file) = (place.path().join("inner"), place.path().join("file"));
        let inotify = Inotify::new().expect("inotify");
        let directory = inotify.directory(place.path()).expect("watched");
        fs::write(&file, "a").expect("a file");
        fs::create_dir(&inner).expect("a directory");
        assert_eq!(
            next(&inotify).await,
            [Change::Made(directory, "inner".to_owned())]
        );
        let changed = inotify.file(&file).expect("watched");
        fs::OpenOptions::new()
            .append(true)
            .open(&file)
            .and_then(|mut it| io::Write::write_all(&mut it, b"b"))
            .expect("a change");
        assert_eq!(next(&inotify).await, [Change::Changed(changed)]);
        fs::remove_file(&file).expect("removed");
        assert_eq!(next(&inotify).await, [Change::Gone(changed)]);
        assert!(inotify.directory(&file).is_err());
    }
}
