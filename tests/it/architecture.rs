//! The house rules that a compiler does not know: who may import whom, which rooms stay pure, how long a file may be.
//!
//! ARCHITECTURE.md explains the rooms; the table below is the one that counts.

use std::fs;
use std::path::{Path, PathBuf};

struct Room {
    name: &'static str,
    /// Rooms of the crate it may name.
    may_import: &'static [&'static str],
    /// Words that may not stand in its code.
    banned: &'static [&'static str],
}

const NO_PRINTING: &[&str] = &["println!", "eprintln!", "print!(", "eprint!("];

const ROOMS: &[Room] = &[
    Room { name: "files", may_import: &[], banned: &["async ", ".await", "tokio", "aws_", "russh"] },
    Room {
        name: "wire",
        may_import: &[],
        banned: &["async ", ".await", "tokio", "std::time", "Instant", "aws_", "russh", "rand::"],
    },
    Room {
        name: "datachannel",
        may_import: &["wire"],
        banned: &["async ", ".await", "tokio", "Instant::now", "SystemTime::now", "Uuid::new_v4", "aws_", "russh"],
    },
    Room { name: "stream", may_import: &["datachannel", "files"], banned: &["aws_", "russh", "AWS-StartSSHSession"] },
    Room { name: "aws", may_import: &["stream", "files"], banned: &["tungstenite", "russh"] },
    Room { name: "ssh", may_import: &["files"], banned: &["aws_", "tungstenite", "ssm", "Ssm", "SSM"] },
    Room {
        name: "copy",
        may_import: &["ssh", "files"],
        banned: &["aws_", "tungstenite", "clap::", "indicatif", "termios"],
    },
    Room {
        name: "client",
        may_import: &["aws", "copy", "datachannel", "files", "ssh", "stream", "wire"],
        banned: &["tungstenite", "russh::", "clap::"],
    },
    Room {
        name: "cli",
        may_import: &["aws", "client", "copy", "datachannel", "files", "ssh", "stream", "wire"],
        banned: &["russh::", "tungstenite::", "aws_sdk_ssm::", "aws_config::"],
    },
];

/// Longest file, in lines, its tests included.
const MAX_LINES: usize = 500;

#[test]
fn a_room_imports_only_the_rooms_below_it() {
    let mut faults = Vec::new();
    for room in ROOMS {
        for (path, code) in sources_of(room.name) {
            for imported in crate_imports(&code) {
                let known = ROOMS.iter().any(|other| other.name == imported);
                if known && imported != room.name && !room.may_import.contains(&imported.as_str()) {
                    faults.push(format!("{}: `{}` may not import `{imported}`", path.display(), room.name));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn a_room_does_not_contain_what_it_must_not_know() {
    let mut faults = Vec::new();
    for room in ROOMS {
        let printing = if room.name == "cli" { &[] } else { NO_PRINTING };
        // A test has to begin at some moment, and only the clock makes one.
        for (path, code) in sources_of(room.name).into_iter().filter(|(path, _)| !path.ends_with("tests.rs")) {
            for (number, line) in code.lines().enumerate() {
                for word in room.banned.iter().chain(printing).filter(|word| line.contains(**word)) {
                    faults.push(format!("{}:{}: `{word}` in room `{}`", path.display(), number + 1, room.name));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Whoever prints an error prints its sources behind it, and would print them twice.
#[test]
fn an_error_does_not_repeat_what_its_source_says() {
    let mut faults = Vec::new();
    for path in rust_files(&root().join("src")) {
        let code = fs::read_to_string(&path).expect("a source file");
        for (number, repeated) in repeated_sources(&code) {
            faults.push(format!("{}:{number}: {repeated}", path.display()));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    let repeats = |code| repeated_sources(code).len();
    assert_eq!(repeats("#[error(\"x: {source}\")]\nA { source: E },"), 1);
    assert_eq!(repeats("#[error(\"x: {0}\")]\nA(#[from] E),\n#[error(\"y {}\", f(.0))]\nB(#[source] E),"), 1);
    assert_eq!(repeats("#[error(\"x: {0}\")]\nA(String),\n#[error(\"y\")]\nB(#[source] E),"), 0);
}

/// The message of each variant that shows its source as it is, with its line.
fn repeated_sources(code: &str) -> Vec<(usize, String)> {
    let begins: Vec<_> = code.match_indices("#[error(").map(|(begin, _)| begin).collect();
    let repeats = |begin: &usize| {
        let (message, rest) = code[*begin..].split_once(")]")?;
        let variant = rest.lines().find(|line| !line.trim().is_empty())?;
        let is_source = variant.contains("#[source]") || variant.contains("#[from]");
        let shows = message.contains("{source}") || (is_source && message.contains("{0}"));
        shows.then(|| (code[..*begin].lines().count() + 1, message.to_owned()))
    };
    begins.iter().filter_map(repeats).collect()
}

#[test]
fn unit_tests_do_not_use_the_lab_because_they_would_see_a_second_copy_of_the_crate() {
    let faults: Vec<_> = rust_files(&root().join("src"))
        .into_iter()
        .filter(|path| fs::read_to_string(path).expect("a source file").contains("ssm_lab"))
        .collect();
    assert!(faults.is_empty(), "{faults:?}");
}

#[test]
fn no_file_is_longer_than_a_reader_can_hold() {
    let mut faults = Vec::new();
    for folder in ["src", "tests", "examples", "integration", "benches", "fuzz/fuzz_targets"] {
        for path in rust_files(&root().join(folder)) {
            let lines = fs::read_to_string(&path).expect("a source file").lines().count();
            if lines > MAX_LINES {
                faults.push(format!("{}: {lines} lines", path.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_import_scan_sees_every_spelling() {
    let code = "use crate::wire::Message;\nuse crate::{ssh, copy::{plan, x}};\nlet x = crate::aws::f();";
    assert_eq!(crate_imports(code), ["wire", "ssh", "copy", "aws"]);
    assert_eq!(without_comments("a // crate::ssh\nb"), "a \nb");
    assert_eq!(without_comments("let u = \"wss://x\";"), "let u = \"wss://x\";");
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The room's files with their code, comments removed: a room's docs may name its neighbours. Its tests may play the
/// other side of anything, so their files do not count.
fn sources_of(room: &str) -> Vec<(PathBuf, String)> {
    let source = root().join("src");
    let mut files = rust_files(&source.join(room));
    files.extend(Some(source.join(format!("{room}.rs"))).filter(|path| path.exists()));
    files.retain(|path| !path.iter().any(|part| part == "tests" || part == "tests.rs"));
    assert!(!files.is_empty(), "room `{room}` has no files");
    let read = |path: PathBuf| {
        let code = without_comments(&fs::read_to_string(&path).expect("a source file"));
        (path, code)
    };
    files.into_iter().map(read).collect()
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut files = Vec::new();
    for path in entries.map(|entry| entry.expect("a folder entry").path()) {
        if path.is_dir() && !path.ends_with("target") {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// Cuts line comments; `//` inside a string (as in a URL) follows a `:` and stays.
fn without_comments(code: &str) -> String {
    let cut = |line: &str| {
        let comment = line.match_indices("//").find(|(at, _)| !line[..*at].ends_with(':'));
        line[..comment.map_or(line.len(), |(at, _)| at)].to_owned()
    };
    // The crate's own name may stand anywhere, though no room but a few may name what it is made of.
    code.lines().map(|line| cut(line).replace("ssmssh", "")).collect::<Vec<_>>().join("\n")
}

/// First path segments after `crate::`, grouped imports included.
fn crate_imports(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(group) => found.extend(top_level_names(group)),
            None => found.push(leading_name(rest)),
        }
    }
    found
}

/// The first name of each item of `a, b::{c, d}, e}`.
fn top_level_names(group: &str) -> Vec<String> {
    let (mut depth, mut names, mut item) = (0, Vec::new(), String::new());
    for letter in group.chars() {
        match letter {
            '}' if depth == 0 => break,
            ',' if depth == 0 => names.push(leading_name(std::mem::take(&mut item).trim())),
            '{' => depth += 1,
            '}' => depth -= 1,
            other => item.push(other),
        }
    }
    names.push(leading_name(item.trim()));
    names.retain(|name| !name.is_empty());
    names
}

fn leading_name(text: &str) -> String {
    text.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect()
}
