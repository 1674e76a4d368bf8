//! Paths and names as bytes.

use std::ffi::OsStr;
use std::fmt::{self, Write as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

/// A path on either side of a copy: any bytes but NUL.
///
/// `Display` is for people: control characters, direction marks and bytes that are not UTF-8 are escaped, so that a
/// name cannot steer the terminal.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BytePath(Vec<u8>);

impl BytePath {
    /// A path of these bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path as the operating system's functions take it.
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// `name` inside this directory.
    #[must_use]
    pub fn join(&self, name: &[u8]) -> Self {
        let mut joined = match self.as_bytes() {
            b"" | b"." => Vec::with_capacity(name.len()),
            base => base.to_vec(),
        };
        if joined.last().is_some_and(|last| *last != b'/') {
            joined.push(b'/');
        }
        joined.extend_from_slice(name);
        Self(joined)
    }

    /// The last name. `None` for a path that ends in `.` or `..`, the root, and the empty path: what they name has
    /// no name of its own there.
    pub fn name(&self) -> Option<&[u8]> {
        match self.trimmed().rsplit(|byte| *byte == b'/').next() {
            None | Some(b"" | b"." | b"..") => None,
            name => name,
        }
    }

    /// The directory that holds the last name.
    #[must_use]
    pub fn parent(&self) -> Self {
        let trimmed = self.trimmed();
        match trimmed.iter().rposition(|byte| *byte == b'/') {
            Some(0) => Self::new(*b"/"),
            Some(slash) => Self::new(&trimmed[..slash]),
            None => Self::new(*b"."),
        }
    }

    /// Whether it ends in a slash, and so can name nothing but a directory.
    pub fn is_directory_like(&self) -> bool {
        self.0.ends_with(b"/")
    }

    /// Whether `self` is `other` or lies under it; both absolute and canonical.
    pub(super) fn is_within(&self, other: &Self) -> bool {
        let base = other.trimmed();
        self.0.strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
    }

    /// Without doubled slashes, `.`, and a slash at the end. `..` stays: what stands before it may be a link.
    pub(super) fn tidied(&self) -> Self {
        let names = self.0.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b"."));
        let names = names.collect::<Vec<_>>().join(&b'/');
        match (self.0.first(), &names[..]) {
            (Some(b'/'), _) => Self([b"/", &names[..]].concat()),
            (_, b"") => Self::from("."),
            _ => Self(names),
        }
    }

    /// As [`tidied`](Self::tidied), from `directory` on where it is relative. A `..` at its start is certain: `directory` is
    /// absolute and holds no link.
    pub(super) fn tidied_in(&self, directory: &Path) -> Self {
        let tidied = self.tidied();
        if tidied.0.starts_with(b"/") {
            return tidied;
        }
        let (mut base, mut rest) = (directory, tidied.as_bytes());
        while let Some(inner) = rest.strip_prefix(b"..").filter(|inner| matches!(inner, [] | [b'/', ..])) {
            base = base.parent().unwrap_or(base);
            rest = inner.strip_prefix(b"/").unwrap_or(inner);
        }
        let base = Self::from(base.to_owned());
        if matches!(rest, b"" | b".") { base } else { base.join(rest) }
    }

    fn trimmed(&self) -> &[u8] {
        let end = self.0.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
        &self.0[..end]
    }
}

impl From<PathBuf> for BytePath {
    fn from(path: PathBuf) -> Self {
        Self(path.into_os_string().into_vec())
    }
}

impl From<&str> for BytePath {
    fn from(path: &str) -> Self {
        Self(path.into())
    }
}

impl fmt::Display for BytePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for letter in chunk.valid().chars() {
                if letter.is_control() || is_direction_mark(letter) {
                    write!(f, "{}", letter.escape_default())?;
                } else {
                    f.write_char(letter)?;
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for BytePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{self}`")
    }
}

/// Characters that show the text after them in another order than it has.
fn is_direction_mark(letter: char) -> bool {
    matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Why a name must not be used as an entry of a directory, if so.
pub(super) fn is_unsafe_name(name: &[u8]) -> bool {
    matches!(name, b"" | b"." | b"..") || name.iter().any(|byte| matches!(byte, b'/' | 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_last_component() {
        let name = |path: &str| BytePath::from(path).name().map(<[u8]>::to_vec);
        assert_eq!(name("a/b"), Some(b"b".to_vec()));
        assert_eq!(name("/b//"), Some(b"b".to_vec()));
        for nameless in ["", "/", "//", ".", "a/..", "a/./", ".."] {
            assert_eq!(name(nameless), None, "{nameless}");
        }
    }

    #[test]
    fn joining_adds_one_slash_and_none_to_the_starting_directory() {
        let join = |base: &str| BytePath::from(base).join(b"x").to_string();
        assert_eq!([join("a"), join("a/"), join("/"), join("."), join("")], ["a/x", "a/x", "/x", "x", "x"]);
    }

    #[test]
    fn a_parent_is_found_for_every_path() {
        let parent = |path: &str| BytePath::from(path).parent().to_string();
        assert_eq!([parent("a/b"), parent("/b"), parent("b"), parent("a/b/")], ["a", "/", ".", "a"]);
    }

    #[test]
    fn a_path_has_one_spelling_but_for_what_may_be_a_link() {
        let tidied = |path: &str| BytePath::from(path).tidied().to_string();
        for (spelled, path) in [
            ("./z", "z"),
            ("a//b/./c/", "a/b/c"),
            ("dir/", "dir"),
            ("//a", "/a"),
            ("/", "/"),
            ("", "."),
            ("./", "."),
            ("a/../b", "a/../b"),
            ("../x", "../x"),
        ] {
            assert_eq!(tidied(spelled), path);
        }
        let here = |path: &str| BytePath::from(path).tidied_in(Path::new("/home/me")).to_string();
        assert_eq!([here("x"), here("./x"), here("/home/me/x"), here("../me/x")], ["/home/me/x"; 4]);
        assert_eq!([here(".."), here("../.."), here("../../.."), here(".")], ["/home", "/", "/", "/home/me"]);
        assert_eq!([here("..a"), here("a/../b")], ["/home/me/..a", "/home/me/a/../b"]);
    }

    #[test]
    fn containment_is_by_component() {
        let within = |inner: &str, outer: &str| BytePath::from(inner).is_within(&outer.into());
        assert!(within("/a/b", "/a") && within("/a", "/a") && within("/a", "/"));
        assert!(!within("/ab", "/a") && !within("/", "/a"));
    }

    #[test]
    fn what_could_steer_a_terminal_is_escaped() {
        let shown = BytePath::new(*b"a b\x1b[2J\n'\xff\xc3\xa9\xe2\x80\xae").to_string();
        assert_eq!(shown, "a b\\u{1b}[2J\\n'\\xffé\\u{202e}");
    }

    #[test]
    fn names_that_lead_elsewhere_are_unsafe() {
        for name in [&b""[..], b".", b"..", b"a/b", b"/etc", b"a\0b"] {
            assert!(is_unsafe_name(name));
        }
        assert!(!is_unsafe_name(b"...") && !is_unsafe_name(b"a\nb \xff"));
    }
}
