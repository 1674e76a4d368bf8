//! Patterns for names and paths, over bytes: `*`, `?`, `[…]`, `{a,b}` and, for paths, `**`.

use fast_glob::{glob_match, validate};

use super::{BytePath, CopyError};

/// More spellings than this are no pattern that a person wrote.
const MAX_SPELLINGS: usize = 4096;

/// Something that a copy leaves out, in the manner of rsync's `--exclude`.
///
/// A pattern without a slash fits names at any depth; one with a slash fits the end of a path, or the whole path from
/// the source's name on if it begins with one (`/tree/cache`). A slash at its end makes it fit directories only. `*` and
/// `?` stop at slashes, `**` does not; `[a-z]`, `[!a-z]`, `{a,b}` and the backslash are known too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exclude {
    pattern: Vec<u8>,
    is_path: bool,
    only_directories: bool,
}

impl Exclude {
    /// What fits `pattern` is left out.
    pub fn new(pattern: impl Into<BytePath>) -> Result<Self, CopyError> {
        let typed = pattern.into();
        let text = typed.as_bytes();
        let only_directories = text.len() > 1 && text.ends_with(b"/");
        let text = if only_directories { &text[..text.len() - 1] } else { text };
        let (pattern, is_path) = match text.strip_prefix(b"/") {
            Some(whole) => (plain(whole), true),
            None if text.contains(&b'/') => ([b"**/", &plain(text)[..]].concat(), true),
            None => (plain(text), false),
        };
        let malformed = |reason: String| CopyError::InvalidPattern { pattern: typed.clone(), reason };
        if text.iter().all(|byte| *byte == b'/') {
            return Err(malformed("it is empty".to_owned()));
        }
        validate(&pattern).map_err(|error| malformed(error.to_string()))?;
        Ok(Self { pattern, is_path, only_directories })
    }

    /// Whether it fits `path`, which begins with the source's name.
    pub(super) fn fits(&self, path: &[u8], is_directory: bool) -> bool {
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        (is_directory || !self.only_directories) && glob_match(&self.pattern, if self.is_path { path } else { name })
    }
}

/// Whether a part of a path has to be matched rather than taken as it is.
pub(super) fn is_pattern(part: &[u8]) -> bool {
    part.iter().any(|byte| b"*?[{".contains(byte))
}

/// Whether a name fits a pattern in which braces have no meaning any more. As in a shell, a dot at its start is fitted
/// by a dot only.
pub(super) fn fits_name(pattern: &[u8], name: &[u8]) -> bool {
    let has_dot = pattern.starts_with(b".") || pattern.starts_with(b"\\.");
    (has_dot || !name.starts_with(b".")) && glob_match(without_braces(&plain(pattern)), name)
}

/// The text that a pattern stands for when nothing in it has a meaning.
pub(super) fn unescape(part: &[u8]) -> Vec<u8> {
    let mut is_escaped = false;
    let is_text = |byte: &&u8| {
        is_escaped = !is_escaped && **byte == b'\\';
        !is_escaped
    };
    part.iter().filter(is_text).copied().collect()
}

/// The spellings that braces stand for, in order: `x{a,b}` is `xa` and `xb`. Braces without a partner, and `{}`, are
/// text.
pub(super) fn spellings(pattern: &[u8]) -> Result<Vec<Vec<u8>>, CopyError> {
    let mut found = Vec::new();
    let mut open = vec![pattern.to_vec()];
    while let Some(next) = open.pop() {
        match first_choice(&next) {
            Some((from, to, choices)) => {
                let spelling = |choice: &&[u8]| [&next[..from], choice, &next[to..]].concat();
                open.extend(choices.iter().rev().map(spelling));
            }
            None => found.push(next),
        }
        if found.len() + open.len() > MAX_SPELLINGS {
            let reason = format!("its braces stand for more than {MAX_SPELLINGS} names");
            return Err(CopyError::InvalidPattern { pattern: BytePath::new(pattern), reason });
        }
    }
    Ok(found)
}

/// The first braces that hold something: where they begin and end, and what they hold between commas.
fn first_choice(pattern: &[u8]) -> Option<(usize, usize, Vec<&[u8]>)> {
    let mut from = 0;
    while let Some(byte) = pattern.get(from) {
        match byte {
            b'\\' => from += 1,
            b'{' if pattern.get(from + 1) != Some(&b'}') => {
                if let Some((to, choices)) = choices(pattern, from) {
                    return Some((from, to, choices));
                }
            }
            _ => {}
        }
        from += 1;
    }
    None
}

/// What the braces that open at `from` hold, and where they end.
fn choices(pattern: &[u8], from: usize) -> Option<(usize, Vec<&[u8]>)> {
    let (mut depth, mut at, mut start, mut choices) = (0_usize, from + 1, from + 1, Vec::new());
    while let Some(byte) = pattern.get(at) {
        match byte {
            b'\\' => at += 1,
            b'{' => depth += 1,
            b'}' if depth > 0 => depth -= 1,
            b',' if depth == 0 => {
                choices.push(&pattern[start..at]);
                start = at + 1;
            }
            b'}' => {
                choices.push(&pattern[start..at]);
                return Some((at + 1, choices));
            }
            _ => {}
        }
        at += 1;
    }
    None
}

/// The pattern without what only the matcher gives a meaning: `!` at the start, and letters behind a backslash.
fn plain(pattern: &[u8]) -> Vec<u8> {
    let mut plain = if pattern.starts_with(b"!") { b"\\".to_vec() } else { Vec::new() };
    let mut bytes = pattern.iter();
    while let Some(byte) = bytes.next() {
        let escaped = if *byte == b'\\' { bytes.next() } else { None };
        if escaped.is_none_or(|letter| !letter.is_ascii_alphanumeric()) {
            plain.push(*byte);
        }
        plain.extend(escaped);
    }
    plain
}

/// The pattern with the braces that are left as text.
fn without_braces(pattern: &[u8]) -> Vec<u8> {
    let mut is_escaped = false;
    let text = |byte: &u8| {
        let is_brace = matches!(byte, b'{' | b'}') && !is_escaped;
        is_escaped = !is_escaped && *byte == b'\\';
        [is_brace.then_some(b'\\'), Some(*byte)].into_iter().flatten()
    };
    pattern.iter().flat_map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_matched_as_bytes() {
        let fits = |pattern: &str, name: &[u8]| fits_name(pattern.as_bytes(), name);
        assert!(fits("*.gz", b"a.gz") && fits("*", b"\xff\xfe") && fits("?", b"\xff") && fits("[!a]b", b"\x80b"));
        assert!(fits("[a-c]*", b"b") && fits("[]x]", b"]") && fits("a[[]b", b"a[b") && fits("\\*", b"*"));
        assert!(!fits("*.gz", b"a.gz2") && !fits("?", b"ab") && !fits("\\*", b"a") && !fits("[^a]", b"a"));
        assert!(fits("!x*", b"!xy") && !fits("!x*", b"y"), "an exclamation mark is text");
        assert!(fits("\\n", b"n") && !fits("\\n", b"\n"), "a letter behind a backslash is that letter");
        assert!(fits("{}*", b"{}a") && fits("a{*", b"a{b"), "braces that are left are text");
        assert!(!fits("[ab", b"a"), "a bracket without its partner fits nothing");
    }

    #[test]
    fn hidden_names_need_a_dot() {
        assert!(!fits_name(b"*", b".profile") && !fits_name(b"[.]profile", b".profile"));
        assert!(fits_name(b".p*", b".profile") && fits_name(b"\\.p*", b".profile"));
    }

    #[test]
    fn braces_are_spelled_out() {
        let spell = |pattern: &str| {
            let found = spellings(pattern.as_bytes()).unwrap();
            found.into_iter().map(|spelling| String::from_utf8(spelling).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(spell("x{a,b}{1,2}"), ["xa1", "xa2", "xb1", "xb2"]);
        assert_eq!(spell("{a,b/{c,d}}/e"), ["a/e", "b/c/e", "b/d/e"]);
        assert_eq!(spell("{a,}z{b}"), ["azb", "zb"]);
        assert_eq!(spell("{}a{"), ["{}a{"]);
        assert_eq!(spell("\\{a,b} {c\\,d,e}"), ["\\{a,b} c\\,d", "\\{a,b} e"]);
        assert!(spellings("{a,b}".repeat(20).as_bytes()).is_err());
    }

    #[test]
    fn what_has_no_meaning_is_text() {
        assert_eq!(unescape(b"a\\*b\\\\c"), b"a*b\\c");
    }

    #[test]
    fn patterns_leave_out_names_and_paths() {
        let fits = |pattern: &str, path: &str, is_directory| {
            Exclude::new(pattern).unwrap().fits(path.as_bytes(), is_directory)
        };
        assert!(fits("*.o", "tree/a/b.o", false) && fits(".git", "tree/.git", true) && !fits("a", "tree/b", false));
        assert!(
            fits("a/*.o", "tree/a/b.o", false) && fits("a/*.o", "a/b.o", false) && !fits("a/*.o", "a/c/b.o", false)
        );
        assert!(fits("/tree/a", "tree/a", false) && !fits("/a", "tree/a", false));
        assert!(fits("cache/", "tree/cache", true) && !fits("cache/", "tree/cache", false));
        assert!(fits("a/**/z", "tree/a/b/c/z", false) && fits("*.{o,a}", "lib.a", false));
    }

    #[test]
    fn a_malformed_pattern_is_refused() {
        for pattern in ["[a", "{a", "a\\", "", "/"] {
            let error = Exclude::new(pattern).unwrap_err();
            assert!(matches!(error, CopyError::InvalidPattern { .. }), "{pattern}: {error}");
        }
    }
}
