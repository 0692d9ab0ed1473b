//! `/proc/PID/fd`: a process's sockets.

use std::{ffi::CStr, mem::MaybeUninit};

use rustix::{
    fs::{CWD, Mode, OFlags, RawDir, openat, readlinkat_raw},
    io::Errno,
};

use super::{Process, ProcessError, unless_ended};

/// One `getdents64` call takes this much, which is some 1,300 descriptors.
const DIRECTORY_BUFFER: usize = 32 * 1024;

/// How many of the sockets with these inodes, in ascending order, any of `pids` holds, `pids` being an
/// instance's processes. Processes that have exited hold none.
///
/// # Errors
///
/// As [`Process::open_sockets`], but for processes that are gone.
pub fn count_held(pids: &[u32], inodes: &[u32]) -> Result<u64, ProcessError> {
    let mut held = vec![false; inodes.len()];
    for pid in pids {
        let note = |_, inode| {
            if let Ok(place) = inodes.binary_search(&inode) {
                held[place] = true;
            }
        };
        unless_ended(Process::open(*pid).and_then(|process| each_socket(&process, note)))?;
    }
    Ok(held.into_iter().filter(|it| *it).count() as u64)
}

/// Calls `found` with descriptor and inode of each socket of `process`.
///
/// The links are read, not followed: `stat` would ask the file systems of the process's other files,
/// and one that hangs would hang the daemon.
pub(super) fn each_socket(
    process: &Process,
    mut found: impl FnMut(i32, u32),
) -> Result<(), ProcessError> {
    let pid = process.id().pid;
    let mut buffer = vec![MaybeUninit::uninit(); DIRECTORY_BUFFER];
    let walked = walk(pid, &mut buffer, &mut found);
    // While the process lives, its pid names no other one.
    if process.has_exited() {
        return Err(ProcessError::NoProcess(pid));
    }
    walked.map_err(|error| ProcessError::new(pid, "/proc/PID/fd", error))
}

fn walk(
    pid: u32,
    buffer: &mut [MaybeUninit<u8>],
    found: &mut impl FnMut(i32, u32),
) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = openat(CWD, format!("/proc/{pid}/fd"), flags, Mode::empty())?;
    let mut entries = RawDir::new(&directory, buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let Some(fd) = number(entry.file_name()) else {
            continue;
        };
        // Longer targets are cut off and are no sockets.
        let mut target = [MaybeUninit::uninit(); 32];
        match readlinkat_raw(&directory, entry.file_name(), &mut target) {
            Ok((target, _)) => {
                if let Some(inode) = socket_inode(target) {
                    found(fd, inode);
                }
            }
            // Closed since the directory was read.
            Err(Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Nothing for `.` and `..`.
fn number(name: &CStr) -> Option<i32> {
    name.to_str().ok()?.parse().ok()
}

fn socket_inode(target: &[u8]) -> Option<u32> {
    let number = target.strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
    str::from_utf8(number).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::{
        net::{TcpListener, UdpSocket},
        os::fd::{AsFd, AsRawFd},
    };

    use rustix::fs::fstat;

    use super::*;

    fn inode(socket: impl AsFd) -> u32 {
        let inode = fstat(socket).expect("fstat").st_ino;
        u32::try_from(inode).expect("a socket's inode")
    }

    #[test]
    fn sockets_are_told_from_other_links() {
        assert_eq!(socket_inode(b"socket:[4026531840]"), Some(4_026_531_840));
        for target in [
            &b"socket:[]"[..],
            b"socket:[12",
            b"socket:[99999999999]",
            b"pipe:[12]",
            b"/tmp/socket:[12]",
            b"",
        ] {
            assert_eq!(socket_inode(target), None);
        }
    }

    #[test]
    fn a_process_shows_its_sockets_and_no_files() {
        let tcp = TcpListener::bind("127.0.0.1:0").expect("bind");
        let udp = UdpSocket::bind("127.0.0.1:0").expect("bind");
        let file = std::fs::File::open("/proc/self/stat").expect("open");
        let again = tcp.try_clone().expect("duplicate");

        let this = Process::open(std::process::id()).expect("open");
        let sockets = this.open_sockets().expect("sockets");
        assert!(sockets.contains(&(tcp.as_raw_fd(), inode(&tcp))));
        assert!(sockets.contains(&(again.as_raw_fd(), inode(&tcp))));
        assert!(sockets.contains(&(udp.as_raw_fd(), inode(&udp))));
        assert!(!sockets.iter().any(|(fd, _)| *fd == file.as_raw_fd()));

        let mut inodes = [inode(&tcp), inode(&udp), u32::MAX];
        inodes.sort_unstable();
        let held = count_held(&[std::process::id(), i32::MAX.unsigned_abs()], &inodes);
        assert_eq!(held.expect("a count"), 2);
    }

    #[test]
    fn more_descriptors_than_one_buffer_holds_are_all_there() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let copies: Vec<_> = (0..100)
            .map(|_| listener.try_clone().expect("duplicate"))
            .collect();
        let wanted = inode(&listener);
        let mut found = Vec::new();
        let mut buffer = [MaybeUninit::uninit(); 256];
        walk(std::process::id(), &mut buffer, &mut |fd, inode| {
            if inode == wanted {
                found.push(fd);
            }
        })
        .expect("walk");
        found.sort_unstable();
        let mut expected: Vec<_> = copies.iter().map(AsRawFd::as_raw_fd).collect();
        expected.push(listener.as_raw_fd());
        expected.sort_unstable();
        assert_eq!(found, expected);
    }
}
