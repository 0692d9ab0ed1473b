//! The file system that pinned maps and programs live on.

use std::{io, path::Path};

use rustix::{
    fs::{FsWord, statfs},
    mount::{MountFlags, mount as mount_filesystem},
};

/// `BPF_FS_MAGIC`.
/// <https://elixir.bootlin.com/linux/v6.18/source/include/uapi/linux/magic.h>
const BPF_FS_MAGIC: FsWord = 0xcafe_4a11;

/// Whether `path` is on a bpffs.
///
/// # Errors
///
/// When the path does not exist or cannot be reached.
pub fn is_bpffs(path: &Path) -> io::Result<bool> {
    Ok(statfs(path)?.f_type == BPF_FS_MAGIC)
}

/// Mounts a bpffs on the directory `path`, for root alone, as systemd does.
///
/// # Errors
///
/// When this process may not mount (`CAP_SYS_ADMIN`), or `path` is no directory.
pub fn mount(path: &Path) -> io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    Ok(mount_filesystem("bpf", path, "bpf", flags, c"mode=0700")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_file_systems_are_not_taken_for_one() {
        assert!(!is_bpffs(Path::new("/proc")).expect("proc"));
        let missing = is_bpffs(Path::new("/proc/no such file")).expect_err("missing");
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_mount_is_refused_where_there_is_no_directory() {
        assert!(mount(Path::new("/proc/no such file")).is_err());
    }
}
