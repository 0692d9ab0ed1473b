//! What can refuse a system call to a process that has the capability for it.

use std::fs;

/// What confines this process, as far as `/proc` and securityfs tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Confinement {
    /// It is in a user namespace other than the first one: its capabilities count only there.
    pub user_namespace: bool,
    /// A system call filter (seccomp) is in force.
    pub filtered: bool,
    /// The security modules that are active, as `/sys/kernel/security/lsm` lists them; nothing
    /// where securityfs is not mounted or not readable.
    pub modules: Option<String>,
}

impl Confinement {
    /// Of the calling thread. What cannot be read is not said.
    #[must_use]
    pub fn current() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let modules = read("/sys/kernel/security/lsm").trim().to_owned();
        Self {
            user_namespace: is_mapped(&read("/proc/thread-self/uid_map")),
            filtered: is_filtered(&read("/proc/thread-self/status")),
            modules: Some(modules).filter(|list| !list.is_empty()),
        }
    }
}

/// The first user namespace maps every uid to itself (`user_namespaces(7)`).
fn is_mapped(uid_map: &str) -> bool {
    let fields: Vec<&str> = uid_map.split_whitespace().collect();
    !fields.is_empty() && fields != ["0", "0", "4294967295"]
}

/// `SECCOMP_MODE_FILTER` is 2 (`proc_pid_status(5)`).
fn is_filtered(status: &str) -> bool {
    status
        .lines()
        .find_map(|line| line.strip_prefix("Seccomp:"))
        .is_some_and(|mode| mode.trim() == "2")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_user_namespace_maps_everything_to_itself() {
        assert!(!is_mapped("         0          0 4294967295\n"));
        assert!(is_mapped("         0       1000          1\n"));
        assert!(is_mapped("0 0 1000\n1000 1000 1\n"));
        assert!(!is_mapped(""));
    }

    #[test]
    fn a_filter_shows_in_the_status() {
        assert!(is_filtered(
            "NoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\n"
        ));
        assert!(!is_filtered("Seccomp:\t0\nSeccomp_filters:\t2\n"));
        assert!(!is_filtered(""));
    }
}
