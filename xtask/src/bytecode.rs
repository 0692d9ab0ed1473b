//! The committed object, and what it was made from.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

use crate::paths;

/// What the object is made of. The compiler is in [`Record::compiler`].
const SOURCES: [&str; 5] = [
    "reuseport-ebpf/Cargo.toml",
    "reuseport-ebpf/Cargo.lock",
    "reuseport-ebpf/src",
    "reuseport-common/Cargo.toml",
    "reuseport-common/src",
];

/// The object's record: from what and by what it was built.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// Digest of the sources.
    pub(crate) sources: String,
    /// Digest of the object.
    pub(crate) object: String,
    /// Compiler and linker, with their LLVMs.
    pub(crate) compiler: String,
}

impl Record {
    /// The record that is committed.
    pub(crate) fn committed() -> Result<Self> {
        let file = record_file();
        let text = read(&file)?;
        let text = String::from_utf8_lossy(&text);
        let values: BTreeMap<&str, &str> = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split_once(": "))
            .collect();
        let value = |name| {
            let value = values.get(name);
            value
                .map(|value| (*value).to_owned())
                .with_context(|| format!("{} does not say `{name}`", file.display()))
        };
        Ok(Self {
            sources: value("sources")?,
            object: value("object")?,
            compiler: value("compiler")?,
        })
    }

    /// Puts the object and its record in their place.
    pub(crate) fn commit(&self, object: &[u8]) -> Result<()> {
        let text = format!(
            "# Written by `cargo xtask build-ebpf`. A change of the sources needs it run again.\n\
             sources: {}\nobject: {}\ncompiler: {}\n",
            self.sources, self.object, self.compiler
        );
        write(&object_file(), object)?;
        write(&record_file(), text.as_bytes())
    }
}

/// The object that is committed.
pub(crate) fn committed_object() -> Result<Vec<u8>> {
    read(&object_file())
}

/// The digest of the sources as they are now.
pub(crate) fn sources() -> Result<String> {
    let mut files = Vec::new();
    for source in SOURCES {
        collect(&paths::root().join(source), &mut files)
            .with_context(|| format!("could not list {source}"))?;
    }
    files.sort();
    let mut digest = Sha256::new();
    for file in files {
        let content = read(&file)?;
        let name = file.strip_prefix(paths::root())?.to_string_lossy();
        // The lengths keep two different trees from reading as the same bytes.
        digest.update(format!("{name} {}\n", content.len()));
        digest.update(content);
    }
    Ok(format!("{:x}", digest.finalize()))
}

/// SHA-256 in hexadecimal digits.
pub(crate) fn digest(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

/// Writes a file, and names it where that fails.
pub(crate) fn write(file: &Path, content: &[u8]) -> Result<()> {
    fs::write(file, content).with_context(|| format!("could not write {}", file.display()))
}

/// Reads a file, and names it where that fails.
pub(crate) fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("could not read {}", file.display()))
}

fn object_file() -> PathBuf {
    paths::root().join("reuseport-daemon/bytecode/reuseport.bpf.o")
}

fn record_file() -> PathBuf {
    paths::root().join("reuseport-daemon/bytecode/reuseport.bpf.sha256")
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    if path.is_file() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(path)? {
        collect(&entry?.path(), files)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_object_is_the_one_that_was_built() {
        let object = committed_object().expect("the object is committed");
        let record = Record::committed().expect("its record is committed");
        assert_eq!(digest(&object), record.object);
    }

    #[test]
    fn the_committed_object_was_built_from_these_sources() {
        let record = Record::committed().expect("the record is committed");
        assert_eq!(
            sources().expect("the sources can be read"),
            record.sources,
            "the eBPF sources have changed: run `cargo xtask build-ebpf` and commit what it writes"
        );
    }
}
