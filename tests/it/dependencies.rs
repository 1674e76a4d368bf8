//! What the dependency tree may not grow: a second TLS stack, crypto provider or HTTP stack, or a new duplicate.
//!
//! Read from `Cargo.lock`, so that it holds for every feature set and target.

use std::collections::BTreeMap;
use std::fs;

/// Crates that would bring a second TLS stack or crypto provider.
const BANNED: &[&str] = &["aws-lc-rs", "aws-lc-sys", "native-tls", "openssl", "openssl-sys", "s2n-tls", "webpki-roots"];

/// Crates that may stand in the tree once only, however many others would like their own version.
const ONCE: &[&str] = &["http", "hyper", "ring", "russh", "rustls", "sha2", "tokio", "tokio-rustls", "tungstenite"];

#[test]
fn one_tls_stack_one_crypto_provider_one_http_stack() {
    let crates = locked_crates();
    let found: Vec<_> = BANNED.iter().filter(|name| crates.contains_key(**name)).collect();
    assert!(found.is_empty(), "banned crates in Cargo.lock: {found:?}");
    for name in ONCE {
        assert_eq!(crates.get(*name).map_or(0, Vec::len), 1, "versions of `{name}`: {:?}", crates.get(*name));
    }
}

/// Crate names of `Cargo.lock` with their versions.
fn locked_crates() -> BTreeMap<String, Vec<String>> {
    let lock = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.lock")).expect("Cargo.lock");
    let value = |line: &str| line.split('"').nth(1).expect("a quoted value").to_owned();
    let mut crates = BTreeMap::<String, Vec<String>>::new();
    let mut lines = lock.lines();
    while let Some(line) = lines.next() {
        if line.starts_with("name = ") {
            let version = value(lines.next().expect("a version after the name"));
            crates.entry(value(line)).or_default().push(version);
        }
    }
    assert!(crates.len() > 100, "Cargo.lock was not understood");
    crates
}

/// What is ignored is ignored for a reason that names its crate, and only as long as that is used.
#[test]
fn an_advisory_that_is_ignored_is_about_a_crate_that_is_there_and_says_why() {
    let deny = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/deny.toml")).expect("deny.toml");
    let ignored: Vec<_> = deny.lines().filter(|line| line.contains("RUSTSEC-")).collect();
    assert!(deny.contains("[advisories]") && !ignored.is_empty());
    for line in ignored {
        let (_, reason) = line.split_once("reason = \"`").expect("a reason that begins with a crate");
        let (name, reason) = reason.split_once('`').expect("a crate");
        assert!(locked_crates().contains_key(name) && reason.len() > 40, "{line}");
    }
}
