//! Which modules a kernel has to be given, and in which order.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::run;

/// What the tests use that Debian builds as modules: `sock_diag`'s answers about TCP, and the devices of
/// the lab.
const WANTED: [&str; 3] = ["inet_diag", "tcp_diag", "tun"];

/// The modules to load into a kernel whose tree (`lib/modules/VERSION`) is `tree`, each after those
/// that it needs. `root` is the directory that `lib` is in.
pub(super) fn needed(root: &Path, tree: &Path) -> Result<Vec<PathBuf>> {
    let index = tree.join("modules.dep");
    if !index.is_file() {
        // Packages leave it to their installation.
        let version = tree.file_name().context("a tree has a version")?;
        run::run(Command::new("depmod").arg("-b").arg(root).arg(version))?;
    }
    let read = |path: &Path| {
        fs::read_to_string(path).with_context(|| format!("could not read {}", path.display()))
    };
    let built_in = read(&tree.join("modules.builtin"))?;
    let order = in_order(&read(&index)?, &built_in, &WANTED)?;
    Ok(order.iter().map(|it| tree.join(it)).collect())
}

/// The files to load for `wanted`, by `modules.dep` and `modules.builtin`.
fn in_order(dependencies: &str, built_in: &str, wanted: &[&str]) -> Result<Vec<String>> {
    let built_in: BTreeSet<String> = built_in.lines().map(name).collect();
    let files: BTreeMap<String, (&str, Vec<&str>)> = dependencies
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(file, needs)| (name(file), (file, needs.split_whitespace().collect())))
        .collect();
    let mut order = Vec::new();
    for wanted in wanted {
        if built_in.contains(*wanted) {
            continue;
        }
        let Some((file, needs)) = files.get(*wanted) else {
            bail!("this kernel has no {wanted}, neither built in nor as a module");
        };
        // What is listed first is what needs the rest (modules.dep(5)).
        for file in needs.iter().rev().chain([file]) {
            let file = (*file).to_owned();
            if !order.contains(&file) {
                order.push(file);
            }
        }
    }
    Ok(order)
}

/// The name that the kernel gives to the module in a file.
fn name(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.split('.').next().unwrap_or(name).replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEPENDENCIES: &str = "\
kernel/net/ipv4/inet_diag.ko.xz:
kernel/net/ipv4/tcp_diag.ko.xz: kernel/net/ipv4/inet_diag.ko.xz
kernel/net/a-top.ko: kernel/net/middle.ko kernel/net/base.ko
kernel/net/middle.ko: kernel/net/base.ko
kernel/net/base.ko:
";

    #[test]
    fn what_is_needed_comes_first_and_once() {
        let order = in_order(DEPENDENCIES, "", &["a_top", "inet_diag", "tcp_diag"]);
        assert_eq!(
            order.expect("an order"),
            [
                "kernel/net/base.ko",
                "kernel/net/middle.ko",
                "kernel/net/a-top.ko",
                "kernel/net/ipv4/inet_diag.ko.xz",
                "kernel/net/ipv4/tcp_diag.ko.xz",
            ]
        );
    }

    #[test]
    fn what_is_built_in_is_not_loaded() {
        let order = in_order(DEPENDENCIES, "kernel/drivers/net/tun.ko\n", &["tun"]);
        assert_eq!(order.expect("an order"), Vec::<String>::new());
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = in_order(DEPENDENCIES, "", &["inet_diag", "tun"]).expect_err("no tun");
        assert!(error.to_string().contains("no tun"), "{error}");
    }
}
