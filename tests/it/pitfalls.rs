//! The table of pitfalls names tests, and they exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const AT_LEAST: usize = 60;

/// The pitfall's number and the tests named for it, where the line is one of the table.
fn row(line: &str) -> Option<(usize, Vec<(&str, &str)>)> {
    let number = line.strip_prefix("| P")?.split_once(' ')?.0.parse().ok()?;
    let tests = line.split('`').filter_map(|text| text.split_once("::")).collect();
    Some((number, tests))
}

fn exists(root: &Path, file: &str, test: &str) -> bool {
    let source = fs::read_to_string(root.join(file)).unwrap_or_default();
    source.contains(&format!("fn {test}()"))
}

#[test]
fn every_pitfall_has_tests_and_they_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = fs::read_to_string(root.join("docs/pitfalls.md")).unwrap();
    let mut seen = BTreeSet::new();
    for (number, tests) in table.lines().filter_map(row) {
        assert!(seen.insert(number), "P{number} is there twice");
        assert!(!tests.is_empty(), "P{number} has no test");
        for (file, test) in tests {
            assert!(exists(root, file, test), "P{number} names {file}::{test}, which does not exist");
        }
    }
    assert_eq!(seen, (1..=seen.len().max(AT_LEAST)).collect());
}
