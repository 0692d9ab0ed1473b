//! `cargo xtask build-ebpf`: from the eBPF crate to the committed object, the same bytes wherever
//! the same compiler builds it.

use std::{env, fs, path::PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::{
    bytecode::{self, Record},
    integration::Cells,
    llvm::Llvm,
    paths, run, test,
    toolchain::{self, Toolchain},
};

const TARGET: &str = "bpfel-unknown-none";

/// Builds the object and puts it in its place.
pub(crate) fn run() -> Result<()> {
    let (object, record) = build()?;
    record.commit(&object)?;
    run::say(&format!(
        "{} bytes, built by {}",
        object.len(),
        record.compiler
    ));
    Ok(())
}

/// Builds the object and compares it with the committed one.
pub(crate) fn check() -> Result<()> {
    let committed = Record::committed()?;
    if bytecode::sources()? != committed.sources {
        bail!(
            "the eBPF sources are not the ones that the committed object was built from; run \
               `cargo xtask build-ebpf` and commit what it writes"
        );
    }
    if bytecode::digest(&bytecode::committed_object()?) != committed.object {
        bail!(
            "the committed object is not the one that its record tells of; run `cargo xtask \
               build-ebpf` and commit what it writes"
        );
    }
    let (object, fresh) = build()?;
    if fresh.compiler == committed.compiler {
        if fresh.object != committed.object {
            bail!(
                "{} makes another object of these sources than the committed one",
                fresh.compiler
            );
        }
        run::say(&format!(
            "the committed object is what {} makes of it",
            fresh.compiler
        ));
        return Ok(());
    }
    run::say(&format!(
        "the committed object is of {}, and this is {}: its bytes say nothing, so the scenarios \
         run with the fresh object",
        committed.compiler, fresh.compiler
    ));
    let file = directory().join("reuseport.bpf.o");
    bytecode::write(&file, &object)?;
    test::run(&[], Cells::Covering, Some(&file))
}

fn build() -> Result<(Vec<u8>, Record)> {
    let toolchain = toolchain::find()?;
    let llvm = Llvm::find(&toolchain.llvm)?;
    let sources = bytecode::sources()?;
    let linked = compile(&toolchain, &llvm)?;
    let object = finish(&llvm, &linked)?;
    let record = Record {
        sources,
        object: bytecode::digest(&object),
        compiler: format!(
            "{} with LLVM {}, {}",
            toolchain.version,
            toolchain.llvm,
            llvm.described()
        ),
    };
    Ok((object, record))
}

fn compile(toolchain: &Toolchain, llvm: &Llvm) -> Result<PathBuf> {
    let linker = llvm.linker()?;
    let package = paths::root().join("reuseport-ebpf");
    // Before the paths are listed that it unpacks into.
    run::run(run::cargo(&package).args(["fetch", "--locked"]))?;
    let mut flags: Vec<String> = [
        "-Cdebuginfo=2",
        "-Csymbol-mangling-version=v0",
        "-Clink-arg=--btf",
    ]
    .map(str::to_owned)
    .into();
    for (path, name) in remapped(toolchain)? {
        flags.push(format!("--remap-path-prefix={}={name}", path.display()));
    }
    run::run(
        run::cargo(&package)
            .args(["build", "--release", "--locked", "--target", TARGET])
            .args(["-Z", "build-std=core", "--target-dir"])
            .arg(directory())
            .env("RUSTC", &toolchain.rustc)
            // For build-std alone: the sources use nothing unstable.
            .env("RUSTC_BOOTSTRAP", "1")
            .env(
                "CARGO_ENCODED_RUSTFLAGS",
                flags.join(&run::SEPARATOR.to_string()),
            )
            .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", linker)
            .env_remove("RUSTC_WRAPPER")
            .env_remove("RUSTC_WORKSPACE_WRAPPER"),
    )?;
    Ok(directory().join(TARGET).join("release/reuseport-ebpf"))
}

/// The paths of this machine that the compiler would write into the line table, and what it writes
/// instead. Where one is within another, the compiler takes the last that fits.
fn remapped(toolchain: &Toolchain) -> Result<Vec<(PathBuf, &'static str)>> {
    let mut paths = vec![(paths::root().to_owned(), "reuseportd")];
    let home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(env::home_dir()?.join(".cargo")))
        .context("neither CARGO_HOME nor HOME says where cargo keeps its sources")?;
    // Each registry has a directory of its own, named after its host.
    let registries = home.join("registry/src");
    for registry in fs::read_dir(&registries)
        .with_context(|| format!("could not list {}", registries.display()))?
    {
        paths.push((registry?.path(), "crates"));
    }
    paths.push((toolchain.sources.clone(), "rust"));
    Ok(paths)
}

/// Leaves out what only a debugger reads, and what differs between two checkouts. The BTF stays.
fn finish(llvm: &Llvm, linked: &PathBuf) -> Result<Vec<u8>> {
    let names = run::output(
        llvm.program("llvm-nm")
            .args(["--just-symbol-name"])
            .arg(linked),
    )?;
    let renamed: Vec<String> = names
        .lines()
        .map(|name| (name, without_disambiguators(name)))
        .filter(|(name, plain)| name != plain)
        .map(|(name, plain)| format!("{name} {plain}"))
        .collect();
    let list = directory().join("symbols");
    bytecode::write(&list, renamed.join("\n").as_bytes())?;
    let finished = directory().join("finished.o");
    run::run(
        llvm.program("llvm-objcopy")
            .arg("--strip-debug")
            .arg("--redefine-syms")
            .arg(&list)
            .arg(linked)
            .arg(&finished),
    )?;
    bytecode::read(&finished)
}

/// A mangled name without its crates' disambiguators: `Cs…_5crate` becomes `C5crate`, which stands
/// for the disambiguator zero. Cargo derives them from the checkout's path, among other things.
/// <https://doc.rust-lang.org/rustc/symbol-mangling/v0.html#path-crate-root>
fn without_disambiguators(symbol: &str) -> String {
    if !symbol.starts_with("_R") {
        return symbol.to_owned();
    }
    let mut parts = symbol.split("Cs");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_once('_') {
            Some((number, rest)) if number.chars().all(|c| c.is_ascii_alphanumeric()) => {
                plain.push('C');
                plain.push_str(rest);
            }
            Some(_) | None => {
                plain.push_str("Cs");
                plain.push_str(part);
            }
        }
    }
    plain
}

fn directory() -> PathBuf {
    paths::target().join("ebpf")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_symbol_loses_its_crates_disambiguator_and_nothing_else() {
        assert_eq!(
            without_disambiguators("_RNvNtCsbrbqohJ108o_14reuseport_ebpf5steer4park"),
            "_RNvNtC14reuseport_ebpf5steer4park"
        );
        assert_eq!(without_disambiguators("select"), "select");
        assert_eq!(without_disambiguators("Cs1_x"), "Cs1_x");
    }
}
