//! Which processes descend from which.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
};

use super::{
    ProcessError,
    stat::{self, Stat},
};
use crate::domain::ProcessId;

/// The living descendants of `pid`, without itself, in no particular order. A worker that is
/// started meanwhile may be missing; one whose parents have all exited is nobody's descendant.
///
/// # Errors
///
/// When `/proc` cannot be read. A process that is gone has no descendants.
pub fn descendants(pid: u32) -> Result<Vec<u32>, ProcessError> {
    let fault = |source| ProcessError::Call {
        pid,
        call: "/proc/PID/task/TID/children",
        source,
    };
    // Only there with CONFIG_PROC_CHILDREN.
    let has_children_files = fs::exists("/proc/thread-self/children").map_err(fault)?;
    if has_children_files {
        closure(pid, children).map_err(fault)
    } else {
        let children = children_by_parent().map_err(fault)?;
        closure(pid, |pid| {
            Ok(children.get(&pid).cloned().unwrap_or_default())
        })
        .map_err(fault)
    }
}

/// A process and those that it descends from, the nearest first; nothing where it has exited.
#[must_use]
pub fn lineage(process: ProcessId) -> Vec<ProcessId> {
    let mut found: Vec<ProcessId> = Vec::new();
    let mut pid = process.pid;
    while let Ok(Stat { parent, start_time }) = stat::read(pid) {
        let it = ProcessId { pid, start_time };
        // A pid that is used again meanwhile can make a circle.
        if found.contains(&it) || (found.is_empty() && it != process) {
            break;
        }
        found.push(it);
        pid = parent;
    }
    found
}

/// Everything that can be reached from `pid`. A pid that is used again meanwhile can make a circle.
fn closure(
    pid: u32,
    mut children: impl FnMut(u32) -> io::Result<Vec<u32>>,
) -> io::Result<Vec<u32>> {
    let mut seen = HashSet::from([pid]);
    let mut found = Vec::new();
    let mut pending = vec![pid];
    while let Some(parent) = pending.pop() {
        for child in children(parent)? {
            if seen.insert(child) {
                found.push(child);
                pending.push(child);
            }
        }
    }
    Ok(found)
}

/// The children that any of the process's threads has started.
fn children(pid: u32) -> io::Result<Vec<u32>> {
    let mut found = Vec::new();
    let Some(threads) = unless_gone(fs::read_dir(format!("/proc/{pid}/task")))? else {
        return Ok(found);
    };
    for thread in threads {
        let Some(thread) = unless_gone(thread)? else {
            break;
        };
        if let Some(list) = unless_gone(fs::read_to_string(thread.path().join("children")))? {
            found.extend(
                list.split_whitespace()
                    .filter_map(|pid| pid.parse::<u32>().ok()),
            );
        }
    }
    Ok(found)
}

fn children_by_parent() -> io::Result<HashMap<u32, Vec<u32>>> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // What cannot be read has exited, or is hidden and can be no descendant to work with.
        if let Ok(stat) = stat::read(pid) {
            children.entry(stat.parent).or_default().push(pid);
        }
    }
    Ok(children)
}

/// Processes and threads may exit at any time, which is no failure.
fn unless_gone<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error)
            if error.kind() == io::ErrorKind::NotFound
                || error.raw_os_error() == Some(libc::ESRCH) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader},
        process::{Command, Stdio},
    };

    use super::*;

    #[test]
    fn grandchildren_are_found_both_ways() {
        // Two shells, the inner of which says its pid and waits for the end of the input.
        let mut child = Command::new("sh")
            .args(["-c", "sh -c 'echo $$; read line'; true"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("sh");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("stdout"))
            .read_line(&mut line)
            .expect("a line");
        let inner: u32 = line.trim().parse().expect("a pid");

        let quick = descendants(std::process::id()).expect("descendants");
        let by_parent = children_by_parent().expect("processes");
        let scanned = closure(std::process::id(), |pid| {
            Ok(by_parent.get(&pid).cloned().unwrap_or_default())
        });
        let scanned = scanned.expect("descendants");
        drop(child.stdin.take());
        child.wait().expect("wait");

        for pid in [inner, child.id()] {
            assert!(quick.contains(&pid), "{pid} in {quick:?}");
            assert!(scanned.contains(&pid), "{pid} in {scanned:?}");
        }
        assert!(!quick.contains(&std::process::id()));
    }

    #[test]
    fn a_lineage_goes_up_to_the_first_process() {
        let id = |pid| {
            let Stat { start_time, .. } = stat::read(pid).expect("stat");
            ProcessId { pid, start_time }
        };
        let this = id(std::process::id());
        let found = lineage(this);
        assert_eq!(found[..2], [this, id(std::os::unix::process::parent_id())]);
        assert_eq!(
            stat::read(found[found.len() - 1].pid).expect("stat").parent,
            0
        );
        let earlier = ProcessId {
            start_time: this.start_time - 1,
            ..this
        };
        assert!(lineage(earlier).is_empty());
    }

    #[test]
    fn a_process_that_is_gone_has_none() {
        assert!(
            descendants(i32::MAX.unsigned_abs())
                .expect("none")
                .is_empty()
        );
    }

    #[test]
    fn a_circle_ends() {
        let found = closure(1, |pid| Ok(vec![pid % 3 + 1])).expect("closure");
        assert_eq!(found, [2, 3]);
    }
}
