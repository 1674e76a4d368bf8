//! What the fuzz targets do with the parsers of this room that nobody else may call.
#![allow(clippy::missing_panics_doc, reason = "a panic is what a fuzz target is for")]

use super::PrivateKey;
use super::known_hosts::{HostKeyBlob, Verdict, judge, records, without};

const HOST: &str = "i-0123456789abcdef0";

/// Whatever a file of known hosts holds: a key that is not in it is never known, and a host that was forgotten is gone.
pub fn known_hosts(data: &[u8]) {
    let blob = [&11_u32.to_be_bytes()[..], b"ssh-ed25519", &32_u32.to_be_bytes(), &[7; 32]].concat();
    let shown = HostKeyBlob::new(blob).expect("a key");
    let line = shown.line_for(HOST);
    let key = line.split(' ').nth(2).unwrap_or_default().as_bytes();
    let holds_key = data.windows(key.len()).any(|part| part == key);
    assert!(holds_key || !matches!(judge(&records(data, HOST), &shown), Verdict::Known));
    let (rest, removed) = without(data, HOST);
    assert!(rest.len() <= data.len() && (removed > 0 || rest == data));
    assert_eq!(without(&rest, HOST).1, 0);
}

/// Whatever a key file holds is a key or an error.
pub fn key_file(data: &[u8]) {
    for passphrase in [None, Some("open-sesame")] {
        drop(PrivateKey::parse(data, "key", passphrase));
    }
}
