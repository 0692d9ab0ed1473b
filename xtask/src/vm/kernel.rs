//! A kernel image and the modules that belong to it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{debian::Apt, modules};
use crate::run;

/// A kernel to boot.
#[derive(Debug)]
pub(super) struct Kernel {
    /// What a boot loader loads.
    pub(super) image: PathBuf,
    /// The modules to load, in order; their files may be compressed with xz.
    pub(super) modules: Vec<PathBuf>,
    /// Where all its modules are: `lib/modules/VERSION`.
    pub(super) tree: Option<PathBuf>,
}

impl Kernel {
    /// The kernel that `wanted` names: a file (an image with its modules beside it, or a package), or
    /// else a package of Debian's. `home` is where packages are kept and unpacked.
    pub(super) fn find(wanted: &str, home: &Path) -> Result<Self> {
        let file = PathBuf::from(wanted);
        let file = if file.is_file() {
            file
        } else {
            ensure!(!wanted.contains('/'), "there is no file {wanted}");
            Apt::new(home.join("apt")).fetch(wanted)?
        };
        let image = if file.extension().is_some_and(|it| it == "deb") {
            image_in(&unpack(&file, home)?.join("boot"))?
        } else {
            file
        };
        let Some((root, tree)) = tree_of(&image)? else {
            run::say("no modules beside the image: taken to have all that is needed built in");
            return Ok(Self {
                image,
                modules: Vec::new(),
                tree: None,
            });
        };
        Ok(Self {
            image,
            modules: modules::needed(&root, &tree)?,
            tree: Some(tree),
        })
    }
}

/// Where the package has been unpacked, once.
fn unpack(package: &Path, home: &Path) -> Result<PathBuf> {
    let name = package.file_stem().context("a package has a name")?;
    let directory = home.join("kernels").join(name);
    if directory.is_dir() {
        return Ok(directory);
    }
    // Under its name once it is whole.
    let partial = home.join("kernels/partial");
    if partial.is_dir() {
        fs::remove_dir_all(&partial)?;
    }
    fs::create_dir_all(&partial)?;
    run::run(Command::new("dpkg").arg("-x").arg(package).arg(&partial))?;
    fs::rename(&partial, &directory)?;
    Ok(directory)
}

fn image_in(boot: &Path) -> Result<PathBuf> {
    let is_image = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default();
        name.to_string_lossy().starts_with("vmlinuz-")
    };
    only(boot, is_image)?.with_context(|| format!("no kernel in {}", boot.display()))
}

/// Where `lib` is, and `lib/modules/VERSION`: beside the image, or beside the directory `boot` that it
/// is in.
fn tree_of(image: &Path) -> Result<Option<(PathBuf, PathBuf)>> {
    for root in fs::canonicalize(image)?.ancestors().skip(1).take(2) {
        let trees = [root.join("lib/modules"), root.join("usr/lib/modules")];
        if let Some(trees) = trees.iter().find(|it| it.is_dir()) {
            let version = image.file_name().unwrap_or_default().to_string_lossy();
            let version = version.strip_prefix("vmlinuz-").map(|it| trees.join(it));
            let tree = match version.filter(|it| it.is_dir()) {
                Some(tree) => Some(tree),
                None => only(trees, |it| it.is_dir())?,
            };
            return Ok(tree.map(|it| (root.to_owned(), it)));
        }
    }
    Ok(None)
}

/// The one entry of a directory that fits.
fn only(directory: &Path, fits: impl Fn(&PathBuf) -> bool) -> Result<Option<PathBuf>> {
    let mut found = None;
    let entries = fs::read_dir(directory)
        .with_context(|| format!("could not read {}", directory.display()))?;
    for entry in entries {
        let path = entry?.path();
        if fits(&path)
            && let Some(other) = found.replace(path)
        {
            bail!(
                "more than one fits in {}: {}",
                directory.display(),
                other.display()
            );
        }
    }
    Ok(found)
}
