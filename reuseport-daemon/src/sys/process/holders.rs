//! Which processes hold a socket.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
};

use super::{Process, descriptors::each_socket};

/// The processes that hold the sockets with these inodes: pids by inode, in ascending order. A
/// socket that no process holds is left out, as is one whose holders may not be looked at. Without
/// any inode there is nothing to look for, and nothing is looked at.
///
/// # Errors
///
/// When `/proc` cannot be read.
pub fn holders(inodes: &BTreeSet<u32>) -> io::Result<BTreeMap<u32, Vec<u32>>> {
    let mut holders: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    if inodes.is_empty() {
        return Ok(holders);
    }
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        pids.extend(name.to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    pids.sort_unstable();
    for pid in pids {
        let mut found = BTreeSet::new();
        let note = |_, inode| {
            if inodes.contains(&inode) {
                found.insert(inode);
            }
        };
        // One that has ended holds nothing, and one that may not be looked at tells nothing.
        let _ = Process::open(pid).and_then(|process| each_socket(&process, note));
        for inode in found {
            holders.entry(inode).or_default().push(pid);
        }
    }
    Ok(holders)
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, os::fd::AsFd};

    use rustix::fs::fstat;

    use super::*;

    #[test]
    fn every_holder_is_found_and_nobody_else() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let other = TcpListener::bind("127.0.0.1:0").expect("bind");
        let inode = |it: &TcpListener| {
            u32::try_from(fstat(it.as_fd()).expect("fstat").st_ino).expect("32 bits")
        };
        // Two descriptors are one holder.
        let _again = listener.try_clone().expect("duplicate");
        let found = holders(&BTreeSet::from([inode(&listener)])).expect("holders");
        let ours = found[&inode(&listener)].iter();
        assert_eq!(ours.filter(|pid| **pid == std::process::id()).count(), 1);
        assert!(!found.contains_key(&inode(&other)));
        assert!(holders(&BTreeSet::new()).expect("none").is_empty());
    }
}
