//! What this crate stands on: from where, under which licences, and how many. What `cargo deny` checks by `.ci/deny.toml`, as
//! far as that can be known without it.
#![allow(clippy::unwrap_used)] // a test that panics has failed, which is what it is for

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// What cargo says; `None`, loudly, where it says nothing without a network.
fn cargo(words: &[&str]) -> Option<String> {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    let output = command.args(words).args(["--offline", "--locked"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = output.output().unwrap();
    if output.status.success() {
        return Some(String::from_utf8(output.stdout).unwrap());
    }
    println!("SKIPPED: cargo {words:?}: {}", String::from_utf8_lossy(&output.stderr));
    None
}

#[test]
fn all_of_it_comes_from_the_registry() {
    let lock = read("Cargo.lock");
    let sources: BTreeSet<&str> = lock.lines().filter_map(|line| line.strip_prefix("source = ")).collect();
    assert_eq!(
        sources.into_iter().collect::<Vec<_>>(),
        [r#""registry+https://github.com/rust-lang/crates.io-index""#]
    );
    let packages = lock.matches("[[package]]").count();
    // Each has a checksum but this crate itself.
    assert_eq!(lock.matches("\nchecksum = ").count() + 1, packages);
    let manifest = read("Cargo.toml");
    for word in ["git = ", "registry = ", "\"*\"", "[patch", "build = "] {
        assert!(!manifest.contains(word), "{word} in Cargo.toml");
    }
}

/// Whether an expression of licences leaves a choice of which all are allowed.
fn allowed(expression: &str, list: &[&str]) -> bool {
    let expression = expression.replace('/', " OR ");
    let all = |choice: &str| choice.split(" AND ").all(|one| any(one, list));
    fn any(part: &str, list: &[&str]) -> bool {
        part.trim().trim_matches(['(', ')']).split(" OR ").any(|one| list.contains(&one.trim()))
    }
    if expression.contains('(') { all(&expression) } else { expression.split(" OR ").any(all) }
}

#[test]
fn licences_are_those_that_are_allowed() {
    let deny = read(".ci/deny.toml");
    let line = deny.lines().find_map(|line| line.strip_prefix("allow = [")).unwrap();
    let list: Vec<&str> = line.trim_end_matches(']').split(", ").map(|name| name.trim_matches('"')).collect();
    assert!(allowed("MIT OR Apache-2.0", &list) && allowed("(MIT OR Apache-2.0) AND Unicode-3.0", &list));
    assert!(
        !allowed("GPL-3.0", &list) && !allowed("MIT AND GPL-3.0", &list) && allowed("GPL-3.0/MIT", &list)
    );
    let Some(metadata) = cargo(&["metadata", "--format-version", "1", "--all-features"]) else { return };
    let found = metadata.matches("\"license\":").count();
    let licences: Vec<&str> =
        metadata.split("\"license\":\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert!(found > 20 && licences.len() == found, "{} of {found} have a licence", licences.len());
    let bad: BTreeSet<_> = licences.into_iter().filter(|licence| !allowed(licence, &list)).collect();
    assert!(bad.is_empty(), "not allowed: {bad:?}");
}

#[test]
fn the_default_build_is_small() {
    let Some(tree) = cargo(&["tree", "--edges", "normal", "--prefix", "none"]) else { return };
    let crates: BTreeSet<&str> = tree.lines().map(|line| line.split(" (").next().unwrap().trim()).collect();
    assert!(crates.len() <= 30, "{} crates: {crates:?}", crates.len());
}
