//! What the far side's shell is asked to run, and which names may come back for it. Pure.
//!
//! Of what was typed the shell expands a leading `~` or `~user`, and in patterns `*`, `?` and `[…]`. Braces are expanded
//! here, since not every shell does it; every other byte is quoted, so that a name with a space, a quote or a `$` is just
//! a name. In patterns a backslash takes the meaning from what follows.

use super::pattern::{Token, tokens};
use crate::copy::path::is_unsafe_name;
use crate::copy::pattern::{fits_name, spellings};
use crate::copy::{BytePath, CopyError, Location};

/// A path on the far side, as it was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    words: Vec<Word>,
}

/// How the far side is asked to copy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Flags {
    /// `-r`.
    pub(super) recursive: bool,
    /// `-p`.
    pub(super) preserve: bool,
    /// `-d`: the target has to be a directory.
    pub(super) directory: bool,
}

/// What may be done with a name that the far side sends for a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Admission {
    /// It is what was asked for, and has this name here; none if it was asked for by a path without one (`.`).
    Only(Option<Vec<u8>>),
    /// It is one of those that were asked for.
    OneOf,
    /// Nobody asked for it.
    No,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Word {
    text: Vec<u8>,
    /// `~` or `~user`, which the shell expands.
    home: Vec<u8>,
    rest: Vec<Token>,
}

impl Request {
    /// A request for the file or directory at `path`.
    pub fn new(path: &BytePath) -> Self {
        Self { words: vec![Word::literal(or_login(path))] }
    }

    /// A request for whatever `pattern` stands for: see [`Location::matching`].
    pub fn matching(pattern: &BytePath) -> Result<Self, CopyError> {
        let words = spellings(or_login(pattern))?;
        Ok(Self { words: words.into_iter().map(Word::pattern).collect() })
    }

    /// A request for each of these, one at least.
    pub(super) fn all<'a>(paths: impl IntoIterator<Item = &'a BytePath>) -> Self {
        Self { words: paths.into_iter().map(|path| Word::literal(or_login(path))).collect() }
    }

    pub(super) fn of(source: &Location) -> Result<Self, CopyError> {
        if source.is_pattern { Self::matching(&source.path) } else { Ok(Self::new(&source.path)) }
    }

    /// The command that makes the far side send it.
    pub(super) fn command(&self, flags: Flags) -> Vec<u8> {
        command(b" -f", flags, &self.words)
    }

    /// Whether one file or directory at most can be meant.
    pub(super) fn is_single(&self) -> bool {
        matches!(&self.words[..], [word] if !word.rest.iter().any(Token::is_wild))
    }

    /// The path of what came under this name; `None` where a pattern leaves open in which directory it lies.
    pub(super) fn path_of(&self, name: &[u8]) -> Option<BytePath> {
        if let ([word], true) = (&self.words[..], self.is_single()) {
            return word.text_of(&word.rest).map(BytePath::new);
        }
        let mut directories = self.words.iter().map(|word| {
            let end = word.last_slash().map_or(0, |slash| slash + 1);
            word.text_of(&word.rest[..end])
        });
        let first = directories.next()??;
        directories.all(|other| other.as_ref() == Some(&first)).then(|| BytePath::new([&first, name].concat()))
    }

    /// Whether the same name may come twice: from several directories.
    pub(super) fn may_repeat(&self) -> bool {
        self.words.len() > 1 || self.words.iter().any(|word| word.directory().iter().any(Token::is_wild))
    }

    /// Whether `name` may come at the top level.
    pub(super) fn admit(&self, name: &[u8]) -> Admission {
        if let ([word], true) = (&self.words[..], self.is_single()) {
            let own = word.own_name();
            // scp spells a name with a line feed in another way.
            let fits = own.as_ref().is_none_or(|own| own == name || own.contains(&b'\n'));
            return if fits { Admission::Only(own) } else { Admission::No };
        }
        let is_asked = self.words.iter().any(|word| word.fits(name));
        if is_asked && !is_unsafe_name(name) { Admission::OneOf } else { Admission::No }
    }
}

/// The command that makes the far side take files at `path`, which names one place: no patterns.
pub(super) fn target_command(path: &BytePath, flags: Flags) -> Vec<u8> {
    command(b" -t", flags, &[Word::literal(or_login(path))])
}

/// A path as the far side's shell takes it.
pub(super) fn quoted(path: &BytePath) -> Vec<u8> {
    let mut word = Vec::new();
    Word::literal(or_login(path)).quote(&mut word);
    word
}

/// The empty path is the login directory.
fn or_login(path: &BytePath) -> &[u8] {
    if path.as_bytes().is_empty() { b"." } else { path.as_bytes() }
}

fn command(direction: &[u8], flags: Flags, words: &[Word]) -> Vec<u8> {
    let mut command = b"scp".to_vec();
    for (is_set, flag) in [(flags.recursive, b" -r"), (flags.preserve, b" -p"), (flags.directory, b" -d")] {
        if is_set {
            command.extend_from_slice(flag);
        }
    }
    command.extend_from_slice(direction);
    // Not all programs that play scp know it, so only where a word could be taken for an option.
    if words.iter().any(Word::is_like_an_option) {
        command.extend_from_slice(b" --");
    }
    for word in words {
        command.push(b' ');
        word.quote(&mut command);
    }
    command
}

impl Word {
    fn pattern(text: Vec<u8>) -> Self {
        let (home, rest) = text.split_at(home_length(&text));
        Self { home: home.to_vec(), rest: tokens(rest), text }
    }

    fn literal(text: &[u8]) -> Self {
        let (home, rest) = text.split_at(home_length(text));
        Self { home: home.to_vec(), rest: rest.iter().copied().map(Token::Byte).collect(), text: text.to_vec() }
    }

    /// The tokens without slashes at the end.
    fn trimmed(&self) -> &[Token] {
        let end = self.rest.iter().rposition(|token| *token != Token::Byte(b'/')).map_or(0, |last| last + 1);
        &self.rest[..end]
    }

    fn last_slash(&self) -> Option<usize> {
        self.trimmed().iter().rposition(|token| *token == Token::Byte(b'/'))
    }

    fn directory(&self) -> &[Token] {
        &self.rest[..self.last_slash().unwrap_or(0)]
    }

    fn base(&self) -> &[Token] {
        &self.trimmed()[self.last_slash().map_or(0, |slash| slash + 1)..]
    }

    /// The name that it ends in, if it has no wildcards and a name of its own.
    fn own_name(&self) -> Option<Vec<u8>> {
        literal(self.base()).filter(|name| !is_unsafe_name(name))
    }

    /// The path down to the end of these tokens, if they have no wildcards.
    fn text_of(&self, tokens: &[Token]) -> Option<Vec<u8>> {
        literal(tokens).map(|rest| [&self.home[..], &rest].concat())
    }

    /// A shell gives back a pattern that fits nothing, and there may be a file of that name.
    fn fits(&self, name: &[u8]) -> bool {
        let typed = BytePath::new(&self.text[..]);
        typed.name().is_some_and(|base| base == name || fits_name(base, name))
    }

    fn is_like_an_option(&self) -> bool {
        self.home.is_empty() && self.rest.first().is_none_or(|first| first.is_wild() || *first == Token::Byte(b'-'))
    }

    fn quote(&self, into: &mut Vec<u8>) {
        into.extend_from_slice(&self.home);
        let mut rest = &self.rest[..];
        // A home ends at a slash that is not quoted.
        if let ([Token::Byte(b'/'), behind @ ..], false) = (rest, self.home.is_empty()) {
            into.push(b'/');
            rest = behind;
        }
        while let Some(first) = rest.first() {
            let run: Vec<_> =
                rest.iter().map_while(|token| if let Token::Byte(byte) = token { Some(*byte) } else { None }).collect();
            if run.is_empty() {
                quote_wild(first, into);
                rest = &rest[1..];
            } else {
                quote_literal(&run, into);
                rest = &rest[run.len()..];
            }
        }
        if self.home.is_empty() && self.rest.is_empty() {
            into.extend_from_slice(b"''");
        }
    }
}

/// The text of tokens without wildcards.
fn literal(tokens: &[Token]) -> Option<Vec<u8>> {
    let byte = |token: &Token| if let Token::Byte(byte) = token { Some(*byte) } else { None };
    tokens.iter().map(byte).collect()
}

/// The length of a `~` or `~user` at the beginning, if the path goes on with a slash or not at all.
fn home_length(text: &[u8]) -> usize {
    if text.first() != Some(&b'~') {
        return 0;
    }
    let is_of_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"_.-".contains(byte);
    let length = 1 + text[1..].iter().take_while(|byte| is_of_name(byte)).count();
    if text.get(length).is_none_or(|next| *next == b'/') { length } else { 0 }
}

fn quote_literal(bytes: &[u8], into: &mut Vec<u8>) {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_./:@%+,-".contains(byte);
    if bytes.iter().all(is_plain) {
        return into.extend_from_slice(bytes);
    }
    into.push(b'\'');
    for byte in bytes {
        match byte {
            b'\'' => into.extend_from_slice(b"'\\''"),
            other => into.push(*other),
        }
    }
    into.push(b'\'');
}

fn quote_wild(token: &Token, into: &mut Vec<u8>) {
    match token {
        Token::Byte(_) => {}
        Token::One => into.push(b'?'),
        Token::Any => into.push(b'*'),
        Token::Set { negated, ranges } => {
            into.extend_from_slice(if *negated { b"[!" } else { b"[" });
            for (low, high) in ranges {
                quote_in_set(*low, into);
                if high != low {
                    into.push(b'-');
                    quote_in_set(*high, into);
                }
            }
            into.push(b']');
        }
    }
}

fn quote_in_set(byte: u8, into: &mut Vec<u8>) {
    if !byte.is_ascii_alphanumeric() {
        into.push(b'\\');
    }
    into.push(byte);
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt as _;
    use std::process::Command;

    use super::*;

    fn command_for(typed: &str) -> String {
        let command = Request::matching(&typed.into()).unwrap().command(Flags::default());
        String::from_utf8(command).unwrap().strip_prefix("scp -f ").unwrap().to_owned()
    }

    #[test]
    fn wildcards_and_homes_are_the_shells_and_the_rest_is_quoted() {
        for (typed, words) in [
            ("logs/app-1.log", "logs/app-1.log"),
            ("", "."),
            ("~", "~"),
            ("~/a b", "~/'a b'"),
            ("~me/*.gz", "~me/*.gz"),
            ("~$(id)", "'~$(id)'"),
            ("it's", "'it'\\''s'"),
            ("a;b", "'a;b'"),
            ("x[!a-c ]?", "x[!a-c\\ ]?"),
            ("\\*", "'*'"),
            ("*", "-- *"),
            ("-r", "-- -r"),
            ("{a,b c}.gz", "a.gz 'b c.gz'"),
        ] {
            assert_eq!(command_for(typed), words, "{typed}");
        }
    }

    #[test]
    fn a_path_that_is_no_pattern_is_quoted_as_a_whole() {
        let command = Request::new(&"~/a*{b,c}".into()).command(Flags::default());
        assert_eq!(command, b"scp -f ~/'a*{b,c}'");
        let admitted = Request::new(&"a*{b,c}".into()).admit(b"a*{b,c}");
        assert_eq!(admitted, Admission::Only(Some(b"a*{b,c}".to_vec())));
    }

    #[test]
    fn flags_are_those_of_scp() {
        let flags = Flags { recursive: true, preserve: true, directory: true };
        assert_eq!(target_command(&"a*".into(), flags), b"scp -r -p -d -t 'a*'");
        assert_eq!(target_command(&"".into(), Flags::default()), b"scp -t .");
    }

    #[test]
    fn a_shell_reads_every_name_back_as_it_was() {
        for name in ["two  words", "$(x)`y`", "a\nb", "'", "\"\\", "~", "!x", "#", "=ls", "caf\u{e9}", "a[1]"] {
            let quoted = target_command(&format!("./{name}").as_str().into(), Flags::default());
            let script = quoted.strip_prefix(b"scp -t ").unwrap();
            let script = [b"printf %s ", script].concat();
            let echoed = Command::new("sh").arg("-c").arg(std::ffi::OsStr::from_bytes(&script)).output().unwrap();
            assert_eq!(String::from_utf8(echoed.stdout).unwrap(), format!("./{name}"));
        }
    }

    #[test]
    fn a_shell_expands_a_home_whatever_follows() {
        for typed in ["~", "~/", "~/a b", "~/*'x", "~/$(x)/y"] {
            let script = [b"printf %s ", &quoted(&typed.into())[..]].concat();
            let mut shell = Command::new("sh");
            let echoed = shell.arg("-c").arg(std::ffi::OsStr::from_bytes(&script)).env("HOME", "/home/me").output();
            assert_eq!(String::from_utf8(echoed.unwrap().stdout).unwrap(), typed.replacen('~', "/home/me", 1));
        }
    }

    fn admit(typed: &str, name: &str) -> Admission {
        Request::matching(&typed.into()).unwrap().admit(name.as_bytes())
    }

    #[test]
    fn only_what_was_asked_for_is_admitted() {
        assert_eq!(admit("dir/file", "file"), Admission::Only(Some(b"file".to_vec())));
        assert_eq!(admit("dir/file/", "file"), Admission::Only(Some(b"file".to_vec())));
        assert_eq!(admit("dir/a\nb", "a\\^Jb"), Admission::Only(Some(b"a\nb".to_vec())));
        for nameless in [".", "", "~", "~me", "~/", "dir/..", "/"] {
            assert_eq!(admit(nameless, "whatever"), Admission::Only(None), "{nameless}");
        }
        assert_eq!(admit("logs/*.gz", "a.gz"), Admission::OneOf);
        assert_eq!(admit("a[1]", "a[1]"), Admission::OneOf);
        assert_eq!(admit("{x,y}", "y"), Admission::OneOf);
        for (typed, name) in
            [("dir/file", ".ssh"), ("*.gz", "evil"), ("*", ".bashrc"), ("*", ".."), ("{x,..}", ".."), ("*", "a/b")]
        {
            assert_eq!(admit(typed, name), Admission::No, "{typed} {name}");
        }
    }

    #[test]
    fn the_path_of_what_came_is_known_unless_directories_are_left_open() {
        let path_of = |typed: &str, name: &str| {
            let path = Request::matching(&typed.into()).unwrap().path_of(name.as_bytes());
            path.map(|path| String::from_utf8(path.as_bytes().to_vec()).unwrap())
        };
        for (typed, name, path) in [
            ("file", "file", "file"),
            ("~/a b/", "a b", "~/a b/"),
            ("x\\*", "x*", "x*"),
            ("*.gz", "a.gz", "a.gz"),
            ("~/lo\\*gs/*.gz", "a.gz", "~/lo*gs/a.gz"),
            ("/*", "etc", "/etc"),
            ("logs/{a,b*}", "b1", "logs/b1"),
        ] {
            assert_eq!(path_of(typed, name).as_deref(), Some(path), "{typed}");
        }
        assert_eq!((path_of("*/x", "x"), path_of("{a,b}/x", "x")), (None, None));
    }

    #[test]
    fn a_name_may_come_twice_only_from_several_directories() {
        let may_repeat = |typed: &str| Request::matching(&typed.into()).unwrap().may_repeat();
        assert!(may_repeat("*/x*") && may_repeat("{a,b}/*"));
        assert!(!may_repeat("a/*") && !may_repeat("a"));
    }
}
