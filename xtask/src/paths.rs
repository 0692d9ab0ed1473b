//! Where things are in the checkout.

use std::{
    env,
    path::{Path, PathBuf},
};

/// The checkout.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("/"))
}

/// The directory for everything that is built.
pub(crate) fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// Where tools are installed that are for this checkout only.
pub(crate) fn tools() -> PathBuf {
    target().join("tools")
}

/// The first of the directories in `PATH` that has `program`.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    // Where Debian puts servers; in a user's PATH it often lacks.
    let servers = PathBuf::from("/usr/sbin");
    env::split_paths(&env::var_os("PATH")?)
        .chain([servers])
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
}
