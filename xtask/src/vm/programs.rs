//! What runs in the virtual machine: our programs, which need nothing beside them, and a few of this
//! machine's, with the libraries that they need.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::{paths, run};

/// The init, by its target's name.
const INIT: &str = "vm-init";

/// The programs that hold the tests.
const TESTS: [&str; 1] = ["scenarios"];

/// What they start.
const STARTED: [&str; 4] = ["reuseportd", "reuseportctl", "fixture", "receive"];

/// What they start of others.
const BORROWED: [&str; 4] = ["cat", "setpriv", "sh", "nginx"];

/// What they start and what stays here, since it is more than a program and its libraries.
const LEFT: [&str; 1] = ["python3"];

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Programs and what they need, by the places that they get in the virtual machine.
#[derive(Debug, Default)]
pub(super) struct Programs {
    pub(super) files: BTreeMap<String, PathBuf>,
    /// Those that hold the tests.
    pub(super) tests: Vec<String>,
    /// Those that they would start and that are not there.
    pub(super) missing: Vec<&'static str>,
}

impl Programs {
    /// Builds ours and looks for the others.
    pub(super) fn gather() -> Result<Self> {
        let mut gathered = Self::default();
        let mut built = build()?;
        let mut take = |name: &str| {
            let found = built.remove(name);
            found.with_context(|| format!("cargo has built no {name}"))
        };
        gathered.files.insert("init".to_owned(), take(INIT)?);
        for name in STARTED.iter().chain(&TESTS) {
            gathered.files.insert(format!("bin/{name}"), take(name)?);
        }
        gathered.tests = TESTS.iter().map(|it| format!("/bin/{it}")).collect();
        gathered.missing.extend(LEFT);
        for name in BORROWED {
            match paths::on_path(name) {
                Some(program) => gathered.borrow(name, program)?,
                None => gathered.missing.push(name),
            }
        }
        Ok(gathered)
    }

    /// A program of this machine's, with its libraries where it will look for them.
    fn borrow(&mut self, name: &str, program: PathBuf) -> Result<()> {
        let libraries = run::output(Command::new("ldd").arg(&program))?;
        self.files.extend(libraries.lines().filter_map(library));
        self.files.insert(format!("bin/{name}"), program);
        Ok(())
    }
}

/// The library in a line of ldd(1): `libc.so.6 => /lib/libc.so.6 (0x7f)`, or the loader's path alone.
fn library(line: &str) -> Option<(String, PathBuf)> {
    let path = line.split_whitespace().find(|it| it.starts_with('/'))?;
    Some((path.to_owned(), path.into()))
}

fn build() -> Result<BTreeMap<String, PathBuf>> {
    let mut build = run::cargo(paths::root());
    build
        .args(["build", "--locked", "--profile", "vm", "--target", TARGET])
        .args(["-p", "reuseport-daemon", "-p", "reuseport-tests", "--bins"])
        .args(["--features", "reuseport-tests/privileged"])
        .args(TESTS.iter().flat_map(|it| ["--test", *it]))
        .arg("--message-format=json-render-diagnostics")
        // With a target of its own, this leaves build scripts and macros as they are.
        .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static");
    run::say(&format!("building for {TARGET}, statically"));
    let messages = run::output(build.stderr(Stdio::inherit()))?;
    Ok(messages.lines().filter_map(executable).collect())
}

/// The name and the file of what a message of cargo's says has been built.
fn executable(message: &str) -> Option<(String, PathBuf)> {
    let message: Value = serde_json::from_str(message).ok()?;
    let name = message["target"]["name"].as_str()?;
    let file = message["executable"].as_str()?;
    Some((name.to_owned(), file.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_taken_from_where_they_are_looked_for() {
        let lines = "\tlinux-vdso.so.1 (0x00007ffd)\n\
                     \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f1c)\n\
                     \t/lib64/ld-linux-x86-64.so.2 (0x00007f1d)\n";
        let found: Vec<_> = lines.lines().filter_map(library).map(|it| it.0).collect();
        let expected = [
            "/lib/x86_64-linux-gnu/libc.so.6",
            "/lib64/ld-linux-x86-64.so.2",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn cargo_says_what_it_has_built() {
        let built = executable(
            r#"{"reason":"compiler-artifact","target":{"name":"fixture"},"executable":"/t/fixture"}"#,
        );
        assert_eq!(built, Some(("fixture".to_owned(), "/t/fixture".into())));
        let library = r#"{"reason":"compiler-artifact","target":{"name":"a"},"executable":null}"#;
        assert_eq!(executable(library), None);
        assert_eq!(
            executable(r#"{"reason":"build-finished","success":true}"#),
            None
        );
    }
}
