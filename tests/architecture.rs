//! The house of docs/design.md: imports run downward only, and files stay small.

#![allow(clippy::unwrap_used, clippy::float_cmp, reason = "a test panics, and compares exact results")]

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Families from the ground up. Those on one line may use each other.
const FLOORS: [&[&str]; 14] = [
    &["error", "element", "nothing"],
    &["kernel"],
    &["model"],
    &["evidence"],
    &["importance"],
    &["quantize"],
    &["prune"],
    &["recover"],
    &["rescale"],
    &["format"],
    &["compress"],
    &["distill"],
    &["onnx"],
    &["lib"],
];

/// Lines of code and docs above the tests.
const MOST_LINES: usize = 420;

fn floor(family: &str) -> usize {
    let found = FLOORS.iter().position(|floor| floor.contains(&family));
    found.unwrap_or_else(|| panic!("`{family}` has no floor: add it to docs/design.md and to this test"))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn sources() -> Vec<PathBuf> {
    let (mut files, mut folders) = (Vec::new(), vec![root()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// What a file is, without its tests and comments.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn family(path: &Path) -> String {
    let below = path.strip_prefix(root()).unwrap();
    below.iter().next().unwrap().to_string_lossy().trim_end_matches(".rs").to_owned()
}

/// First names after each `crate::` or in each `crate::{…}`.
fn imported(code: &str) -> Vec<String> {
    let mut names = Vec::new();
    for after in code.split("crate::").skip(1) {
        let Some(list) = after.strip_prefix('{') else {
            names.push(after.to_owned());
            continue;
        };
        let (mut depth, mut item) = (0, String::new());
        for c in list.chars() {
            match c {
                '}' if depth == 0 => break,
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => names.push(std::mem::take(&mut item)),
                _ => item.push(c),
            }
        }
        names.push(item);
    }
    let first = |item: &String| {
        item.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>()
    };
    names.iter().map(first).filter(|name| !name.is_empty()).collect()
}

/// The family behind each name that `lib.rs` re-exports.
fn reexports() -> HashMap<String, String> {
    let lib = code(&root().join("lib.rs"));
    let mut families = HashMap::new();
    for statement in lib.split(';').filter_map(|s| s.trim().strip_prefix("pub use ")) {
        let (family, names) = statement.split_once("::").unwrap_or((statement, ""));
        for name in names.split([',', '{', '}']).map(str::trim).filter(|name| !name.is_empty()) {
            families.insert(name.to_owned(), family.to_owned());
        }
    }
    families
}

#[test]
fn imports_run_downward() {
    let reexports = reexports();
    let mut upward = Vec::new();
    // The tool stands on top, and sees what everybody sees.
    for path in sources().into_iter().filter(|path| family(path) != "bin") {
        let from = family(&path);
        for name in imported(&code(&path)) {
            let to = reexports.get(&name).cloned().unwrap_or(name.clone());
            if floor(&to) > floor(&from) {
                upward.push(format!("{} imports {name} of {to}", path.display()));
            }
        }
    }
    assert!(upward.is_empty(), "{upward:#?}");
}

#[test]
fn the_check_sees_an_upward_import() {
    let code = "use crate::{Element, prune::{Plan, Cut}, Model}; crate::kernel::par::map()";
    assert_eq!(imported(code), ["Element", "prune", "Model", "kernel"]);
    assert!(floor("prune") > floor("model"));
    assert_eq!(reexports().get("Model").map(String::as_str), Some("model"));
}

#[test]
fn files_stay_small() {
    let lines = |path: &PathBuf| {
        let text = fs::read_to_string(path).unwrap();
        text.split("#[cfg(test)]").next().unwrap_or_default().lines().count()
    };
    // Generated code is not read.
    let written = sources().into_iter().filter(|path| !path.ends_with("onnx/proto/messages.rs"));
    let sizes: Vec<(PathBuf, usize)> = written.map(|path| (path.clone(), lines(&path))).collect();
    let large: Vec<_> = sizes.iter().filter(|(_, lines)| *lines > MOST_LINES).collect();
    assert!(large.is_empty(), "{large:#?}");
}
