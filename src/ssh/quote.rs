//! Names in messages, written so that a shell reads them back and a terminal obeys nothing in them; and in commands,
//! for whatever shell a user has.

use std::{fmt::Write as _, os::unix::ffi::OsStrExt, path::Path};

/// A path as a shell takes it.
pub(super) fn path(path: &Path) -> String {
    bytes(path.as_os_str().as_bytes())
}

/// A text as a shell takes it.
pub(super) fn text(text: &str) -> String {
    bytes(text.as_bytes())
}

/// Most characters that are kept of a sentence of a server.
const SENTENCE: usize = 300;
/// The same of a banner, which may be a page.
pub(super) const BANNER: usize = 8000;

/// A sentence of a server, cut: it may be as long as a packet. It may still steer a terminal.
pub(crate) fn said(text: &str) -> String {
    text_of_server(text, SENTENCE)
}

/// A text of a server, cut after so many characters.
pub(crate) fn text_of_server(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A word of a command, for any shell that knows single quotes. What is quoted so may steer a terminal.
pub(crate) fn word(raw: &[u8]) -> Vec<u8> {
    let mut quoted = vec![b'\''];
    for &byte in raw {
        match byte {
            b'\'' => quoted.extend_from_slice(br"'\''"),
            other => quoted.push(other),
        }
    }
    quoted.push(b'\'');
    quoted
}

fn bytes(raw: &[u8]) -> String {
    match str::from_utf8(raw) {
        Ok(text) if !text.is_empty() && text.chars().all(is_plain) => text.to_owned(),
        Ok(text) if !text.contains(char::is_control) => format!("'{}'", text.replace('\'', r"'\''")),
        _ => escaped(raw),
    }
}

fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_./:@%+=,-".contains(c)
}

/// `$'…'`, with every byte spelled out that is not printable ASCII.
fn escaped(raw: &[u8]) -> String {
    let mut quoted = "$'".to_owned();
    for &byte in raw {
        match byte {
            b'\'' | b'\\' => quoted.extend(['\\', char::from(byte)]),
            b' '..=b'~' => quoted.push(char::from(byte)),
            _ => drop(write!(quoted, "\\x{byte:02x}")),
        }
    }
    quoted.push('\'');
    quoted
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt as _;

    use super::*;

    #[test]
    fn a_shell_reads_back_what_was_quoted() {
        let names: [&[u8]; 8] = [
            b"plain.pem",
            b"",
            b"two words",
            b"it's",
            b"[i-1]:22",
            b"new\nline",
            b"\xff'\\",
            "schl\u{fc}ssel".as_bytes(),
        ];
        for name in names {
            let script = format!("printf %s {}", bytes(name));
            let echoed = std::process::Command::new("bash").arg("-c").arg(&script).output().expect("bash runs");
            assert_eq!(echoed.stdout, name, "{script}");
            let script = OsString::from_vec([b"printf %s ", &word(name)[..]].concat());
            let echoed = std::process::Command::new("sh").arg("-c").arg(&script).output().expect("sh runs");
            assert_eq!(echoed.stdout, name, "{}", script.display());
        }
    }

    #[test]
    fn plain_names_stay_as_they_are() {
        assert_eq!(path(Path::new("/home/me/.ssh/key-1.pem")), "/home/me/.ssh/key-1.pem");
        assert_eq!(text("[i-0abc]:2222"), "'[i-0abc]:2222'");
    }
}
