//! A disk with a file system on it, made without a mount.

use std::{path::Path, process::Command};

use anyhow::Result;

use crate::run;

/// Room for Debian, the packages and a journal. What is not written takes none.
const SIZE: &str = "2G";

/// Writes what is in the directory `root` to a new image.
pub(super) fn make(root: &Path, image: &Path) -> Result<()> {
    run::run(
        Command::new("mke2fs")
            .args(["-q", "-F", "-t", "ext4", "-E", "root_owner=0:0", "-d"])
            .args([root, image])
            .arg(SIZE),
    )
}
