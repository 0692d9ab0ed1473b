//! Control groups, where systemd keeps the processes of its units: each unit has a directory of its
//! name in the unified hierarchy, below those of the slices that it is in.

use std::{
    collections::BTreeSet,
    fs::{self, DirEntry},
    io,
    path::{Path, PathBuf},
};

use thiserror::Error;

/// How deep the tree is looked into. systemd's own units are five deep at most, with a user's.
const DEPTH: usize = 32;

/// The file that lists a group's processes.
const PROCESSES: &str = "cgroup.procs";

/// The control groups cannot be read.
#[derive(Debug, Error)]
pub enum CgroupError {
    /// There is no unified hierarchy to be seen.
    #[error("no cgroup2 file system is mounted here, by which units are found")]
    NotMounted,
    /// A file or directory.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The unified hierarchy.
#[derive(Clone, Debug)]
pub struct Cgroups {
    root: PathBuf,
}

/// A group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cgroup {
    /// Its name, as systemd has it: without the `_` that keeps it apart from the kernel's own files
    /// (`cg_escape`,
    /// <https://github.com/systemd/systemd/blob/v252/src/basic/cgroup-util.c>).
    pub name: String,
    path: PathBuf,
}

impl Cgroups {
    /// Where it is mounted.
    ///
    /// # Errors
    ///
    /// [`CgroupError`]
    pub fn find() -> Result<Self, CgroupError> {
        const MOUNTS: &str = "/proc/self/mountinfo";
        let mounts = fs::read_to_string(MOUNTS).map_err(read_error(Path::new(MOUNTS)))?;
        let root = mounts.lines().find_map(unified).map(PathBuf::from);
        root.map(|root| Self { root })
            .ok_or(CgroupError::NotMounted)
    }

    /// The group that all others are in.
    #[must_use]
    pub fn root(&self) -> Cgroup {
        Cgroup {
            name: String::new(),
            path: self.root.clone(),
        }
    }

    /// Every group that `wanted` knows by its name, wherever it is. What is in one is not looked at.
    /// Groups that come and go meanwhile may be among them or not.
    ///
    /// # Errors
    ///
    /// [`CgroupError::Read`]
    pub fn named(&self, wanted: impl Fn(&str) -> bool) -> Result<Vec<Cgroup>, CgroupError> {
        let mut found = Vec::new();
        let mut pending = vec![(self.root(), 0)];
        while let Some((group, depth)) = pending.pop() {
            for child in group.children()? {
                if wanted(&child.name) {
                    found.push(child);
                } else if depth < DEPTH {
                    pending.push((child, depth + 1));
                }
            }
        }
        Ok(found)
    }
}

impl Cgroup {
    /// Its directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file that changes when it gets its first process and when it loses its last one
    /// (<https://elixir.bootlin.com/linux/v6.18/source/Documentation/admin-guide/cgroup-v2.rst>,
    /// `cgroup.events`).
    #[must_use]
    pub fn events(&self) -> PathBuf {
        self.path.join("cgroup.events")
    }

    /// The group that is directly in it and has a directory of that name.
    #[must_use]
    pub fn child(&self, directory: &str) -> Self {
        let name = directory.strip_prefix('_').unwrap_or(directory);
        Self {
            name: name.to_owned(),
            path: self.path.join(directory),
        }
    }

    /// The groups that are directly in it; none where it is gone.
    ///
    /// # Errors
    ///
    /// [`CgroupError::Read`]
    pub fn children(&self) -> Result<Vec<Self>, CgroupError> {
        let fault = read_error(&self.path);
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if is_gone(&error) => return Ok(Vec::new()),
            Err(error) => return Err(fault(error)),
        };
        let mut found = Vec::new();
        for entry in entries {
            match entry.and_then(|it| directory(&it)) {
                Ok(name) => found.extend(name.map(|it| self.child(&it))),
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(fault(error)),
            }
        }
        Ok(found)
    }

    /// The processes in it and in every group below it, as this process sees their numbers.
    ///
    /// # Errors
    ///
    /// [`CgroupError::Read`]
    pub fn processes(&self) -> Result<BTreeSet<u32>, CgroupError> {
        let mut found = BTreeSet::new();
        let mut pending = vec![(self.clone(), 0)];
        while let Some((group, depth)) = pending.pop() {
            let path = group.path.join(PROCESSES);
            match fs::read_to_string(&path) {
                Ok(text) => found.extend(pids(&text)),
                // A threaded group's processes are listed by the group whose threads it divides.
                Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(read_error(&path)(error)),
            }
            if depth < DEPTH {
                let children = group.children()?.into_iter();
                pending.extend(children.map(|it| (it, depth + 1)));
            }
        }
        Ok(found)
    }
}

/// Those of other pid namespaces have the number 0.
fn pids(text: &str) -> impl Iterator<Item = u32> {
    text.lines()
        .filter_map(|line| line.parse().ok())
        .filter(|pid| *pid != 0)
}

/// The entry's name, if it is a directory. systemd's names are ASCII; what is not UTF-8 is nobody's
/// that is looked for.
fn directory(entry: &DirEntry) -> io::Result<Option<String>> {
    let is_directory = entry.file_type()?.is_dir();
    Ok(is_directory
        .then(|| entry.file_name().into_string().ok())
        .flatten())
}

/// The mount point in a line of `/proc/PID/mountinfo`, if it is the whole of the unified hierarchy
/// (<https://elixir.bootlin.com/linux/v6.18/source/Documentation/filesystems/proc.rst>, 3.5).
fn unified(line: &str) -> Option<&str> {
    let (mount, kind) = line.split_once(" - ")?;
    let mut fields = mount.split(' ').skip(3);
    let (root, point) = (fields.next()?, fields.next()?);
    (root == "/" && kind.split(' ').next() == Some("cgroup2")).then_some(point)
}

/// A group may be removed at any time, before or while it is read.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

fn read_error(path: &Path) -> impl Fn(io::Error) -> CgroupError {
    move |source| CgroupError::Read {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unified_hierarchy_is_told_from_other_mounts() {
        let line = "31 24 0:27 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate";
        assert_eq!(unified(line), Some("/sys/fs/cgroup"));
        for other in [
            "31 24 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu",
            "31 24 0:27 /system.slice /mnt rw - cgroup2 cgroup2 rw",
            "31 24 0:27 / /sys rw - sysfs sysfs rw",
            "",
        ] {
            assert_eq!(unified(other), None, "{other}");
        }
    }

    #[test]
    fn a_tree_is_walked_and_names_are_unescaped() {
        let root = tempfile::tempdir().expect("a directory");
        let group = |path: &str, pids: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(&path).expect("a group");
            fs::write(path.join(PROCESSES), pids).expect("its processes");
        };
        group(
            "system.slice/system-game.slice/game@v1.service",
            "7\n0\n9\n",
        );
        group(
            "system.slice/system-game.slice/game@v1.service/inner",
            "11\n",
        );
        group("user.slice/user@7.service/app.slice/game@v1.service", "");
        group("system.slice/_cpu.service", "5\n");
        let groups = Cgroups {
            root: root.path().to_owned(),
        };

        let found = groups.named(|it| it == "game@v1.service").expect("groups");
        assert_eq!(found.len(), 2, "{found:?}");
        let processes = found.iter().map(|it| it.processes().expect("processes"));
        let processes: BTreeSet<_> = processes.flatten().collect();
        assert_eq!(processes, [7, 9, 11].into());

        let found = groups.named(|it| it == "cpu.service").expect("groups");
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].processes().expect("processes"), [5].into());
        assert!(
            groups
                .named(|it| it == "no.service")
                .expect("groups")
                .is_empty()
        );
        fs::remove_dir_all(found[0].path()).expect("removed");
        assert!(found[0].processes().expect("none").is_empty());
    }
}
