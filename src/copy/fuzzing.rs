//! What the fuzz targets do with the parsers of this room that nobody else may call.
#![allow(clippy::missing_panics_doc, reason = "a panic is what a fuzz target is for")]

use super::BytePath;
use super::journal::fuzzing::decode_twice;
use super::pattern::{Exclude, fits_name, spellings, unescape};

/// Whatever pattern is typed, and whatever name it is held against. The first byte says how much of the input is the
/// pattern.
pub fn glob(data: &[u8]) {
    let Some((&length, rest)) = data.split_first() else { return };
    let (pattern, name) = rest.split_at(rest.len().min(usize::from(length)));
    if let Ok(exclude) = Exclude::new(BytePath::new(pattern)) {
        let _ = exclude.fits(name, true);
    }
    assert!(unescape(pattern).len() <= pattern.len());
    for spelling in spellings(pattern).into_iter().flatten() {
        let _ = fits_name(&spelling, name);
    }
}

/// Whatever a journal holds: what counts of it says the same when it is read alone.
pub fn journal(data: &[u8]) {
    decode_twice(data);
}
