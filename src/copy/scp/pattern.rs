//! What a shell makes of `*`, `?` and `[…]`, so that the rest can be quoted. Pure, over bytes.

/// What a backslash takes the meaning from. Before anything else it is a letter like others.
const SPECIAL: &[u8] = b"*?[]{}~\\";

/// A part of a word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// This byte.
    Byte(u8),
    /// `?`: any byte.
    One,
    /// `*`: any bytes.
    Any,
    /// `[…]`: one of these ranges, or none of them.
    Set { negated: bool, ranges: Vec<(u8, u8)> },
}

impl Token {
    pub(super) fn is_wild(&self) -> bool {
        !matches!(self, Self::Byte(_))
    }
}

/// Reads a word without braces.
pub(super) fn tokens(mut text: &[u8]) -> Vec<Token> {
    let mut tokens = Vec::new();
    while let Some((first, rest)) = text.split_first() {
        let (token, rest) = match (*first, rest) {
            (b'\\', [next, rest @ ..]) if SPECIAL.contains(next) => (Token::Byte(*next), rest),
            (b'*', rest) => (Token::Any, rest),
            (b'?', rest) => (Token::One, rest),
            (b'[', rest) => set(rest).unwrap_or((Token::Byte(b'['), rest)),
            (byte, rest) => (Token::Byte(byte), rest),
        };
        tokens.push(token);
        text = rest;
    }
    tokens
}

/// Reads on behind a `[`. `None` where it stands for itself.
fn set(text: &[u8]) -> Option<(Token, &[u8])> {
    let (negated, text) = match text {
        [b'!' | b'^', rest @ ..] => (true, rest),
        text => (false, text),
    };
    // A bracket right at the beginning is one of the set.
    let end = 1 + text.get(1..)?.iter().position(|byte| *byte == b']')?;
    let (mut inside, rest) = (&text[..end], &text[end + 1..]);
    if inside.iter().any(|byte| *byte == b'/' || byte.is_ascii_control()) {
        return None;
    }
    let mut ranges = Vec::new();
    while let Some((low, rest)) = inside.split_first() {
        let (high, rest) = match rest {
            [b'-', high, rest @ ..] => (high, rest),
            rest => (low, rest),
        };
        ranges.push((*low, *high));
        inside = rest;
    }
    Some((Token::Set { negated, ranges }, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_shell_gives_a_meaning_is_told_from_text() {
        let is_wild = |text: &str| tokens(text.as_bytes()).iter().any(Token::is_wild);
        for pattern in ["*", "a?", "[a-c]x", "[!a]", "[]]", "[[]"] {
            assert!(is_wild(pattern), "{pattern}");
        }
        for text in ["a", "\\*", "\\[a]", "[", "[]", "[a", "a]", "[a/b]", "a\\b"] {
            assert!(!is_wild(text), "{text}");
        }
        assert_eq!(tokens(b"a\\b\\*"), [b'a', b'\\', b'b', b'*'].map(Token::Byte));
        let set = Token::Set { negated: true, ranges: vec![(b'a', b'c'), (b'-', b'-')] };
        assert_eq!(tokens(b"[^a-c-]"), [set]);
    }
}
