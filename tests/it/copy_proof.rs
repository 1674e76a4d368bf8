//! The tables of what a copy promises name tests, and they exist.

use std::fs;
use std::path::Path;

/// Sections: fast, safe, what fingers expect, the library, proof.
const SECTIONS: usize = 5;

/// A section, and a row's number in it.
type At = (usize, usize);

/// Where a row stands, and the tests named for it, if the line is one.
fn row(line: &str) -> Option<(At, Vec<(&str, &str)>)> {
    let (section, number) = line.strip_prefix("| ")?.split_once(" | ")?.0.split_once('.')?;
    let tests = line.split('`').filter_map(|text| text.split_once("::")).collect();
    Some(((section.parse().ok()?, number.parse().ok()?), tests))
}

fn exists(root: &Path, file: &str, test: &str) -> bool {
    fs::read_to_string(root.join(file)).is_ok_and(|source| source.contains(&format!("fn {test}(")))
}

#[test]
fn every_promise_has_tests_and_they_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = fs::read_to_string(root.join("docs/copy-proof.md")).unwrap();
    let mut last = (0, 0);
    for (at, tests) in table.lines().filter_map(row) {
        assert!(at == (last.0, last.1 + 1) || at == (last.0 + 1, 1), "{at:?} follows {last:?}");
        last = at;
        assert!(!tests.is_empty(), "{at:?} has no test");
        for (file, test) in tests {
            assert!(exists(root, file, test), "{at:?} names {file}::{test}, which does not exist");
        }
    }
    assert_eq!(last.0, SECTIONS);
}
