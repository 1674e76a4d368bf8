//! What the fuzz targets do with the parsers of this room that nobody else may call.
#![allow(clippy::missing_panics_doc, reason = "a panic is what a fuzz target is for")]

use super::proxy::{ProxyConfig, parse_answer};

/// Whatever a proxy answers, and whatever is given as its URL: nothing of a password is repeated.
pub fn proxy(data: &[u8]) {
    if let Some(answer) = parse_answer(data) {
        assert!((100..1000).contains(&answer.status));
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    let secret = "hunter2hunter2";
    if let Err(error) = ProxyConfig::new(&format!("http://jo:{text}{secret}@proxy.example:3128"), text) {
        assert!(!error.to_string().contains(secret));
    }
}
