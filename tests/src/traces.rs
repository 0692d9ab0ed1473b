//! Everything that a request could change.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{ctl::Ctl, stage::Stage, wait::until};

/// What a daemon shows and holds, but for what traffic moves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traces {
    /// What `status --json` prints.
    pub status: String,
    /// What the daemon has open.
    pub descriptors: Vec<PathBuf>,
    /// Everything on the bpffs.
    pub pins: Vec<PathBuf>,
}

impl Traces {
    /// Those of the stage's daemon, once it has closed every connection: one that has been answered
    /// lasts a moment longer.
    ///
    /// # Errors
    ///
    /// Where they cannot be read.
    pub fn of(stage: &Stage) -> Result<Self> {
        Self::beside(stage, 0)
    }

    /// The same, while migrations are under way, each with a connection. The daemon looks at sockets
    /// on their behalf every now and then, and has a descriptor more for that moment: what counts is
    /// what two readings have in common.
    ///
    /// # Errors
    ///
    /// As [`Traces::of`].
    pub fn beside(stage: &Stage, migrations: usize) -> Result<Self> {
        // At its start the daemon tries what the kernel does, beside everything else. To ask for what it
        // found is to wait for that, whatever it was.
        Ctl::of(stage.home())?.run("doctor")?;
        let read = || Self::read(stage, migrations);
        if migrations > 0 {
            Self::settled(read)
        } else {
            read()
        }
    }

    /// Reads until two readings are the same: what the daemon does beside a call comes to its end.
    ///
    /// # Errors
    ///
    /// As `read`, and where it does not come to that.
    pub fn settled(read: impl Fn() -> Result<Self>) -> Result<Self> {
        let mut last = read()?;
        until("two readings are the same", || {
            let next = read()?;
            let same = next == last;
            last = next;
            Ok(same)
        })?;
        Ok(last)
    }

    /// These are what they were before.
    ///
    /// # Errors
    ///
    /// Where they are not: what has changed.
    pub fn same_as(&self, before: &Self) -> Result<()> {
        ensure!(
            self.status == before.status,
            "{} became {}",
            before.status,
            self.status
        );
        for (what, now, then) in [
            ("descriptors", &self.descriptors, &before.descriptors),
            ("pins", &self.pins, &before.pins),
        ] {
            let more: Vec<_> = now.iter().filter(|it| !then.contains(it)).collect();
            let fewer: Vec<_> = then.iter().filter(|it| !now.contains(it)).collect();
            ensure!(
                now == then,
                "{} {what} became {}, more by {more:?}, fewer by {fewer:?}",
                then.len(),
                now.len()
            );
        }
        Ok(())
    }

    /// Waits until what is read is what this was: what has been undone, or was begun for a client that
    /// has gone, may come to its end a moment later.
    ///
    /// # Errors
    ///
    /// Where it does not come to that: what has changed.
    pub fn come_back(&self, read: impl Fn() -> Result<Self>) -> Result<()> {
        let mut now = read()?;
        let waited = until("all is as before", || {
            if now != *self {
                now = read()?;
            }
            Ok(now == *self)
        });
        now.same_as(self)?;
        waited
    }

    fn read(stage: &Stage, connected: usize) -> Result<Self> {
        let status = Ctl::of(stage.home())?.done("--json status")?;
        until("answered connections are closed", || {
            Ok(connections(stage)? == connected)
        })?;
        Ok(Self {
            status: without_traffic(&status)?,
            descriptors: descriptors(stage.daemon().pid())?,
            pins: tree(&stage.home().bpffs())?,
        })
    }
}

/// What a process has open, in order.
///
/// # Errors
///
/// Where it is gone.
pub fn descriptors(pid: u32) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        // One that has been closed meanwhile is not open.
        found.extend(fs::read_link(entry?.path()));
    }
    found.sort_unstable();
    Ok(found)
}

/// How many connections the daemon has: like the listener, each goes by the socket's path. The kernel
/// lists it in the client's namespace, which is the daemon's or this process's.
fn connections(stage: &Stage) -> Result<usize> {
    /// The listener's line has `__SO_ACCEPTCON` in its flags (`unix_seq_show`,
    /// <https://elixir.bootlin.com/linux/v6.18/source/net/unix/af_unix.c>).
    const LISTENS: &str = " 00010000 ";
    let path = stage.home().socket().display().to_string();
    let mut count = 0;
    for process in [stage.daemon().pid(), std::process::id()] {
        let sockets = fs::read_to_string(format!("/proc/{process}/net/unix"))?;
        let ours = sockets.lines().filter(|line| line.ends_with(&path));
        count += ours.filter(|line| !line.contains(LISTENS)).count();
    }
    Ok(count)
}

/// A status with every number left out that clients move.
///
/// # Errors
///
/// Where it is not JSON.
pub fn without_traffic(status: &str) -> Result<String> {
    let mut value = serde_json::from_str(status).context("a status")?;
    forget_traffic(&mut value);
    Ok(value.to_string())
}

fn forget_traffic(value: &mut Value) {
    const TRAFFIC: [&str; 4] = ["outcomes", "selected", "accept_queue", "sessions"];
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| !TRAFFIC.contains(&name.as_str()));
            fields.values_mut().for_each(forget_traffic);
        }
        Value::Array(items) => items.iter_mut().for_each(forget_traffic),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Everything below a directory, in order.
///
/// # Errors
///
/// Where it cannot be read.
pub fn tree(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut left = vec![directory.to_owned()];
    while let Some(next) = left.pop() {
        for entry in fs::read_dir(&next).with_context(|| next.display().to_string())? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                left.push(entry.path());
            }
            found.push(entry.path());
        }
    }
    found.sort_unstable();
    Ok(found)
}
