//! The file system that the kernel starts with, and the only one that it gets.

use std::{
    fs::{self, File},
    io::{BufWriter, Write as _},
    path::Path,
    process::Command,
};

use anyhow::{Context as _, Result};

use super::{cpio::Archive, programs::Programs};

/// Users, since servers run as some; without names to look up over a network.
const ETC: [(&str, &str); 3] = [
    (
        "etc/passwd",
        "root:x:0:0::/:/\nwww-data:x:33:33::/:/\nnobody:x:65534:65534::/:/\n",
    ),
    ("etc/group", "root:x:0:\nwww-data:x:33:\nnogroup:x:65534:\n"),
    ("etc/nsswitch.conf", "passwd: files\ngroup: files\n"),
];

/// Where something is mounted, or tests leave their files.
const DIRECTORIES: [&str; 6] = ["dev", "proc", "sys", "tmp", "run", "var/log/nginx"];

/// What the init is to do, besides what it always does.
#[derive(Debug)]
pub(super) struct Task<'a> {
    /// What the tests are told, as `NAME=VALUE`.
    pub(super) environment: Vec<String>,
    /// What every program that holds tests is called with.
    pub(super) arguments: &'a [String],
}

/// Writes it to `file`. The init reads lists, one entry a line, from the directory `vm`.
pub(super) fn write(
    file: &Path,
    programs: &Programs,
    modules: &[std::path::PathBuf],
    task: &Task<'_>,
) -> Result<()> {
    let to = File::create(file).with_context(|| format!("could not make {}", file.display()))?;
    let mut archive = Archive::new(BufWriter::new(to));
    for directory in DIRECTORIES {
        archive.directory(directory)?;
    }
    // The kernel opens it for the init, before that can mount anything.
    archive.device("dev/console", 5, 1)?;
    for (name, contents) in ETC {
        archive.file(name, contents.as_bytes())?;
    }
    for (name, source) in &programs.files {
        let contents =
            fs::read(source).with_context(|| format!("could not read {}", source.display()))?;
        archive.file(name, &contents)?;
    }
    let mut loaded = Vec::new();
    for module in modules {
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        let place = format!("/modules/{}", name.trim_end_matches(".xz"));
        archive.file(&place, &uncompressed(module)?)?;
        loaded.push(place);
    }
    for (name, lines) in [
        ("modules", loaded.as_slice()),
        ("environment", &task.environment),
        ("tests", &programs.tests),
        ("arguments", task.arguments),
    ] {
        let lines: String = lines.iter().flat_map(|it| [it.as_str(), "\n"]).collect();
        archive.file(&format!("vm/{name}"), lines.as_bytes())?;
    }
    archive.finish()?.flush()?;
    Ok(())
}

fn uncompressed(module: &Path) -> Result<Vec<u8>> {
    if module.extension().is_none_or(|it| it != "xz") {
        return fs::read(module).with_context(|| format!("could not read {}", module.display()));
    }
    let output = Command::new("xz").arg("-dc").arg(module).output();
    let output = output.context("could not start xz")?;
    anyhow::ensure!(
        output.status.success(),
        "xz -dc {}: {}",
        module.display(),
        output.status
    );
    Ok(output.stdout)
}
