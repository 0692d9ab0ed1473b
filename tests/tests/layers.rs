//! The shape of the code: who may know of whom, where `unsafe` may stand, how long a file may be.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// What each part of the daemon's library may use of the others. ARCHITECTURE.md says why.
const MAY_USE: [(&str, &[&str]); 8] = [
    ("domain", &[]),
    ("sys", &["domain"]),
    ("steering", &["domain"]),
    ("api", &["domain", "sys"]),
    ("daemon", &["api", "domain", "steering", "sys"]),
    ("lab", &["api", "domain", "sys"]),
    ("demo", &["api", "domain", "lab"]),
    ("cli", &["api", "daemon", "demo", "domain", "lab"]),
];

/// The longest that a file may be.
const LINES: usize = 400;

/// Longer ones, and why.
const LONGER: [(&str, &str); 2] = [
    (
        "api/wire.rs",
        "one type for every message, and nothing else",
    ),
    ("lab/ledger.rs", "a quarter of it is its tests"),
];

#[test]
fn parts_know_only_those_below_them() {
    let source = root().join("reuseport-daemon/src");
    let allowed: BTreeMap<&str, &[&str]> = MAY_USE.into();
    let parts: BTreeSet<String> = fs::read_dir(&source)
        .expect("sources")
        .map(|entry| entry.expect("entry"))
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().expect("UTF-8"))
        .filter(|name| name != "bin")
        .collect();
    let known: BTreeSet<String> = allowed.keys().map(|it| (*it).to_owned()).collect();
    assert_eq!(parts, known, "a part that this test does not know");

    let mut wrong = Vec::new();
    for part in &parts {
        for file in rust_files(&source.join(part)) {
            let text = fs::read_to_string(&file).expect("readable");
            for used in used_parts(&text, &parts) {
                if used != *part && !allowed[part.as_str()].contains(&used.as_str()) {
                    wrong.push(format!("{} uses {used}", file.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn unsafe_has_its_places() {
    let mut wrong = Vec::new();
    for file in all_files() {
        let path = file.to_string_lossy().into_owned();
        let may = [
            "/sys/",
            "/reuseport-ebpf/",
            "/reuseport-common/",
            "/tests/layers.rs",
        ];
        if may.iter().any(|place| path.contains(place)) {
            continue;
        }
        let text = fs::read_to_string(&file).expect("readable");
        let blocks = ["unsafe {", "unsafe impl", "unsafe fn"];
        if text
            .lines()
            .map(code)
            .any(|line| blocks.iter().any(|it| line.contains(it)))
        {
            wrong.push(path);
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn files_are_short() {
    let mut long = Vec::new();
    for file in all_files() {
        let lines = fs::read_to_string(&file).expect("readable").lines().count();
        let known = LONGER.iter().any(|(path, _)| file.ends_with(path));
        if lines > LINES && !known {
            long.push(format!("{}: {lines} lines", file.display()));
        }
    }
    assert!(long.is_empty(), "{long:#?}");
}

#[test]
fn every_crate_inherits_the_lints() {
    for name in ["reuseport-common", "reuseport-daemon", "tests", "xtask"] {
        let manifest = fs::read_to_string(root().join(name).join("Cargo.toml")).expect(name);
        assert!(manifest.contains("[lints]\nworkspace = true"), "{name}");
    }
}

/// The parts that a file names in `crate::part` or in `use crate::{part…}`.
fn used_parts(text: &str, parts: &BTreeSet<String>) -> BTreeSet<String> {
    let code: String = text.lines().map(code).collect::<Vec<_>>().join("\n");
    let mut used = BTreeSet::new();
    for (position, _) in code.match_indices("crate::") {
        let rest = &code[position + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(list) => used.extend(first_words(list)),
            None => used.extend(word(rest)),
        }
    }
    used.retain(|name| parts.contains(name));
    used
}

/// The first word of every item at the top of a use list, which ends with its brace.
fn first_words(list: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut depth = 0;
    let mut at_start = true;
    for (position, character) in list.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => at_start = true,
            _ if at_start && character.is_ascii_alphabetic() => {
                words.extend(word(&list[position..]));
                at_start = false;
            }
            _ => {}
        }
    }
    words
}

fn word(text: &str) -> Option<String> {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let word = &text[..end.unwrap_or(text.len())];
    (!word.is_empty()).then(|| word.to_owned())
}

/// A line without its comment.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

fn all_files() -> Vec<PathBuf> {
    [
        "reuseport-common",
        "reuseport-ebpf",
        "reuseport-daemon",
        "tests",
        "xtask",
    ]
    .into_iter()
    .flat_map(|name| rust_files(&root().join(name)))
    .collect()
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            if !path.ends_with("target") {
                files.extend(rust_files(&path));
            }
        } else if path.extension().is_some_and(|it| it == "rs") {
            files.push(path);
        }
    }
    files
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("a workspace")
}
