//! What the two ends say beside the bytes of files: control lines and replies. Pure values.
//!
//! ```text
//!   T1700000000 0 1700000000 0     times of what comes next: modified, 0, accessed, 0
//!   C0644 1234 name                a file and its size; its bytes and a reply follow
//!   D0755 0 name                   a directory; what lies in it follows, up to its
//!   E                              end
//!
//!   \0                             yes
//!   \1words                        a complaint: this one failed, the next may not
//!   \2words                        the end of everything
//! ```

use std::fmt;

use bytes::{Buf as _, BytesMut};

use crate::copy::BytePath;

/// The longest line taken, in bytes: a name has 255 at most, and a complaint about it names a path.
pub const MAX_LINE: usize = 8192;
/// How much of a line that is none is shown.
const SHOWN: usize = 60;

/// What the sending side says. Names are as they were sent, unchecked.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Control {
    /// Times of the file or directory that comes next.
    Times(Times),
    /// A file, whose bytes follow.
    File {
        /// Permission bits, at most `0o7777`.
        mode: u32,
        /// How many bytes follow.
        size: u64,
        /// Its name.
        name: Vec<u8>,
    },
    /// A directory, what lies in it follows.
    Directory {
        /// Permission bits, at most `0o7777`.
        mode: u32,
        /// Its name.
        name: Vec<u8>,
    },
    /// The directory that was begun last has nothing more in it.
    End,
}

/// Times in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// Of last modification.
    pub modified: u64,
    /// Of last access.
    pub accessed: u64,
}

/// What either side answers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reply {
    /// Go on.
    Yes,
    /// It failed; what comes next may not.
    Complaint(Words),
    /// Nothing more can be copied.
    Fatal(Words),
}

/// What the far side's program says. `Display` escapes what could steer a terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words(BytePath);

impl Words {
    /// The bytes as they were sent, without the program's name in front.
    pub fn new(sent: &[u8]) -> Self {
        let sent = sent.strip_prefix(b"scp: ").unwrap_or(sent);
        Self(BytePath::new(sent))
    }

    /// Without the path that they are about, where whoever hears them knows it.
    pub(super) fn reason(&self) -> Self {
        self.split().map_or_else(|| self.clone(), |(_, reason)| reason)
    }

    /// The path that they are about, and the reason, where they have the usual form `path: reason`.
    pub(super) fn split(&self) -> Option<(BytePath, Self)> {
        let bytes = self.0.as_bytes();
        let at = bytes.windows(2).rposition(|pair| pair == b": ")?;
        Some((BytePath::new(&bytes[..at]), Self(BytePath::new(&bytes[at + 2..])))).filter(|_| at > 0)
    }
}

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.as_bytes().is_empty() { f.write_str("no reason given") } else { self.0.fmt(f) }
    }
}

/// How the far side broke the rules of a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LineError {
    /// Neither a control line nor a reply: most often what a start-up file prints.
    #[error(
        "`{0}` came instead: a start-up file such as .bashrc prints it, the user's login shell, or a forced command"
    )]
    Text(BytePath),
    /// A line that does not end.
    #[error("a line has more than {MAX_LINE} bytes")]
    TooLong,
    /// Permission bits that are not four octal digits.
    #[error("a line does not give permissions as four octal digits")]
    Mode,
    /// A size that is none.
    #[error("a line gives no size")]
    Size,
    /// Times that are none, or that no clock shows.
    #[error("a line gives no times")]
    Times,
}

impl Control {
    /// Reads a line, its line feed removed.
    pub fn decode(line: &[u8]) -> Result<Self, LineError> {
        match line {
            [b'T', rest @ ..] => Times::decode(rest).map(Self::Times).ok_or(LineError::Times),
            [b'C', rest @ ..] => entry(rest).map(|(mode, size, name)| Self::File { mode, size, name }),
            [b'D', rest @ ..] => entry(rest).map(|(mode, _, name)| Self::Directory { mode, name }),
            [b'E'] => Ok(Self::End),
            other => Err(LineError::Text(shown(other))),
        }
    }

    /// The line, with its line feed. A name must not hold one.
    pub fn encode(&self) -> Vec<u8> {
        let mut line = match self {
            Self::Times(Times { modified, accessed }) => format!("T{modified} 0 {accessed} 0").into_bytes(),
            Self::File { mode, size, name } => [format!("C{mode:04o} {size} ").as_bytes(), name].concat(),
            Self::Directory { mode, name } => [format!("D{mode:04o} 0 ").as_bytes(), name].concat(),
            Self::End => b"E".to_vec(),
        };
        line.push(b'\n');
        line
    }
}

impl Times {
    fn decode(text: &[u8]) -> Option<Self> {
        let mut fields = text.split(|byte| *byte == b' ').map(number);
        let (modified, _, accessed, _) = (fields.next()??, fields.next()??, fields.next()??, fields.next()??);
        // Beyond this no clock of ours goes, and sums with it overflow.
        let is_time = |seconds: u64| seconds <= i64::MAX as u64 / 4;
        (fields.next().is_none() && is_time(modified) && is_time(accessed)).then_some(Self { modified, accessed })
    }
}

impl Reply {
    /// Takes one reply off the front of `input`. `None`: it is not there yet as a whole.
    pub fn take(input: &mut BytesMut) -> Result<Option<Self>, LineError> {
        let kind = match input.first() {
            None => return Ok(None),
            Some(0) => {
                input.advance(1);
                return Ok(Some(Self::Yes));
            }
            Some(kind) => *kind,
        };
        let Some(line) = take_line(input)? else { return Ok(None) };
        match kind {
            1 => Ok(Some(Self::Complaint(Words::new(&line[1..])))),
            2 => Ok(Some(Self::Fatal(Words::new(&line[1..])))),
            _ => Err(LineError::Text(shown(&line))),
        }
    }

    /// The bytes of the reply.
    pub fn encode(&self) -> Vec<u8> {
        let line = |kind: u8, words: &Words| {
            let plain = words.to_string().replace('\n', " ");
            [&[kind][..], b"scp: ", plain.as_bytes(), b"\n"].concat()
        };
        match self {
            Self::Yes => vec![0],
            Self::Complaint(words) => line(1, words),
            Self::Fatal(words) => line(2, words),
        }
    }
}

/// Takes a line off the front of `input`, without its line feed. `None`: its end is not there yet.
pub(super) fn take_line(input: &mut BytesMut) -> Result<Option<BytesMut>, LineError> {
    match input.iter().take(MAX_LINE).position(|byte| *byte == b'\n') {
        Some(end) => {
            let mut line = input.split_to(end + 1);
            line.truncate(end);
            Ok(Some(line))
        }
        None if input.len() >= MAX_LINE => Err(LineError::TooLong),
        None => Ok(None),
    }
}

/// `0644 1234 name`.
fn entry(text: &[u8]) -> Result<(u32, u64, Vec<u8>), LineError> {
    let (mode, rest) = text.split_at_checked(4).ok_or(LineError::Mode)?;
    let mode = octal(mode).ok_or(LineError::Mode)?;
    let rest = rest.strip_prefix(b" ").ok_or(LineError::Mode)?;
    let end = rest.iter().position(|byte| *byte == b' ').ok_or(LineError::Size)?;
    let size = number(&rest[..end]).filter(|size| i64::try_from(*size).is_ok()).ok_or(LineError::Size)?;
    Ok((mode, size, rest[end + 1..].to_vec()))
}

fn octal(digits: &[u8]) -> Option<u32> {
    let digit = |byte: &u8| char::from(*byte).to_digit(8);
    digits.iter().try_fold(0, |value, byte| Some(value * 8 + digit(byte)?))
}

/// Digits and nothing else.
fn number(digits: &[u8]) -> Option<u64> {
    let text = str::from_utf8(digits).ok()?;
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

fn shown(line: &[u8]) -> BytePath {
    BytePath::new(&line[..line.len().min(SHOWN)])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(line: &str) -> Result<Control, LineError> {
        Control::decode(line.as_bytes())
    }

    #[test]
    fn lines_are_read_as_openssh_writes_them() {
        let file = |mode, size, name: &str| Control::File { mode, size, name: name.into() };
        assert_eq!(decode("C0644 12 a b"), Ok(file(0o644, 12, "a b")));
        assert_eq!(decode("C4755 0 x"), Ok(file(0o4755, 0, "x")));
        assert_eq!(decode("D0755 0 dir"), Ok(Control::Directory { mode: 0o755, name: b"dir".to_vec() }));
        assert_eq!(decode("T1700000000 0 1600000000 5"), Ok(Control::Times(times(1_700_000_000, 1_600_000_000))));
        assert_eq!(decode("E"), Ok(Control::End));
    }

    fn times(modified: u64, accessed: u64) -> Times {
        Times { modified, accessed }
    }

    #[test]
    fn what_is_no_line_is_named() {
        for line in ["C644 1 x", "C06444 1 x", "C0689 1 x", "C064", "C+644 1 x", "D-755 0 x"] {
            assert_eq!(decode(line), Err(LineError::Mode), "{line}");
        }
        for line in ["C0644 x", "C0644 1", "C0644 -1 x", "C0644 +1 x", "C0644 9223372036854775808 x", "C0644  1 x"] {
            assert_eq!(decode(line), Err(LineError::Size), "{line}");
        }
        for line in ["T1 0 1", "T1 0 1 0 0", "T-1 0 1 0", "T18446744073709551615 0 1 0", "T", "Tx 0 1 0"] {
            assert_eq!(decode(line), Err(LineError::Times), "{line}");
        }
        for line in ["", "Welcome to this node", "EE", "c0644 1 x"] {
            assert!(matches!(decode(line), Err(LineError::Text(_))), "{line}");
        }
    }

    #[test]
    fn a_line_that_does_not_end_is_not_waited_for() {
        let mut input = BytesMut::from(&[1; MAX_LINE - 1][..]);
        assert_eq!(Reply::take(&mut input), Ok(None));
        input.extend_from_slice(b"x");
        assert_eq!(Reply::take(&mut input), Err(LineError::TooLong));
    }

    #[test]
    fn words_name_a_path_and_a_reason_and_steer_no_terminal() {
        let words = Words::new(b"scp: dir: x/\x1b[2J: Permission denied");
        let (path, reason) = words.split().unwrap();
        assert_eq!((path.to_string(), reason.to_string()), ("dir: x/\\u{1b}[2J".into(), "Permission denied".into()));
        assert!(Words::new(b"lost").split().is_none() && Words::new(b": x").split().is_none());
        assert_eq!(Words::new(b"").to_string(), "no reason given");
    }

    fn names() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(any::<u8>().prop_filter("a line feed", |byte| *byte != b'\n'), 0..50)
    }

    fn controls() -> impl Strategy<Value = Control> {
        let mode = || 0..=0o7777u32;
        prop_oneof![
            (mode(), 0..=i64::MAX as u64, names()).prop_map(|(mode, size, name)| Control::File { mode, size, name }),
            (mode(), names()).prop_map(|(mode, name)| Control::Directory { mode, name }),
            (0..=u64::MAX / 8, 0..=u64::MAX / 8).prop_map(|(one, two)| Control::Times(times(one, two))),
            Just(Control::End),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(control in controls()) {
            let line = control.encode();
            let (feed, line) = line.split_last().unwrap();
            prop_assert_eq!((*feed, Control::decode(line)), (b'\n', Ok(control)));
        }

        #[test]
        fn any_bytes_are_a_line_or_an_error(line in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Control::decode(&line);
        }

        #[test]
        fn replies_are_taken_whole_however_they_arrive(words in names(), cut in any::<usize>()) {
            let reply = Reply::Complaint(Words::new(&[b"x", &words[..]].concat()));
            let bytes = [&reply.encode()[..], &[0]].concat();
            let (first, second) = bytes.split_at(cut % bytes.len());
            let mut input = BytesMut::from(first);
            let early = Reply::take(&mut input).unwrap();
            input.extend_from_slice(second);
            let late = if early.is_none() { Reply::take(&mut input).unwrap() } else { early };
            // What was escaped to be sent stays escaped.
            let sent = matches!(late, Some(Reply::Complaint(words)) if words.to_string().starts_with('x'));
            prop_assert!(sent);
            prop_assert_eq!(Reply::take(&mut input), Ok(Some(Reply::Yes)));
        }
    }
}
