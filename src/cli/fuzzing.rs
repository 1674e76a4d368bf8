//! What the fuzz targets do with the parsers of the commands.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use super::options::SshOptions;
use super::target::{Operand, Target};
use super::units;

/// Whatever word is typed where a target, a path, an option, a time or a size is expected.
pub fn words(data: &[u8]) {
    let word = OsStr::from_bytes(data);
    let operand = Operand::parse(word);
    if let Ok(Operand::Remote { path, .. }) = &operand {
        assert!(data.ends_with(path));
    }
    let _ = SshOptions::parse([&word.to_owned()]);
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(target) = text.parse::<Target>() {
        assert!(text.ends_with(target.node.as_str()));
    }
    let _ = (units::time(text), units::size(text), units::kilobits(text), units::port(text));
}
