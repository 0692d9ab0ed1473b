//! Everything that a request could change.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{ctl::Ctl, stage::Stage};

/// What a daemon shows and holds, but for what traffic moves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traces {
    /// What `status --json` prints.
    pub status: String,
    /// How many descriptors the daemon has open.
    pub descriptors: usize,
    /// Everything on the bpffs.
    pub pins: Vec<PathBuf>,
}

impl Traces {
    /// Those of the stage's daemon.
    ///
    /// # Errors
    ///
    /// Where they cannot be read.
    pub fn of(stage: &Stage) -> Result<Self> {
        let status = Ctl::of(stage.home())?.done("--json status")?;
        Ok(Self {
            status: without_traffic(&status)?,
            descriptors: fs::read_dir(format!("/proc/{}/fd", stage.daemon().pid()))?.count(),
            pins: tree(&stage.home().bpffs())?,
        })
    }
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
