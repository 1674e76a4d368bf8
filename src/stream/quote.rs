//! What others say, made fit to be repeated.

/// Most characters of what a service says that are repeated.
pub(crate) const SENTENCE: usize = 200;

/// The same of a version number.
pub(super) const VERSION: usize = 40;

/// The same where the end matters most: a refusal of IAM names two ARNs before it says which policy is the cause.
pub(crate) const REFUSAL: usize = 400;

/// Whoever refuses a signature repeats the request that was signed, and in it, after this name, the session token.
const TOKEN_NAME: &str = "x-amz-security-token";

/// Real secrets have 40 characters and more; blotting out shorter ones would tear holes into words.
const SHORTEST_SECRET: usize = 12;

/// The first line of `text`, cut at a word after at most `limit` characters, without control characters and without any
/// of `secrets`.
pub(crate) fn quote(text: &str, limit: usize, secrets: &[&str]) -> String {
    let text = text.trim();
    let line = text.lines().next().unwrap_or_default().trim_end();
    let mut is_cut = line.len() < text.len();
    let mut line: String = line.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    for secret in secrets.iter().filter(|secret| secret.len() >= SHORTEST_SECRET) {
        line = line.replace(secret, "[secret]");
    }
    if let Some(at) = line.to_ascii_lowercase().find(TOKEN_NAME) {
        line.truncate(at);
        is_cut = true;
    }
    if let Some((end, _)) = line.char_indices().nth(limit) {
        let end = line[..end].rfind(char::is_whitespace).unwrap_or(end);
        line.truncate(end);
        is_cut = true;
    }
    let kept = if is_cut { line.trim_end_matches([' ', '\t', ',', ':', ';']) } else { &line };
    match kept.chars().last() {
        // The sentence is whole; what is left out was none.
        Some('.') | None => kept.to_owned(),
        Some(_) if is_cut => format!("{kept}…"),
        Some(_) => kept.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_sentence_is_repeated_as_it_is() {
        assert_eq!(quote(" i-0 is not connected. \n", SENTENCE, &[]), "i-0 is not connected.");
        assert_eq!(quote("", SENTENCE, &[]), "");
    }

    #[test]
    fn a_long_one_is_cut_at_a_word() {
        assert_eq!(quote("one two three", 9, &[]), "one two…");
        assert_eq!(quote("one two three", 13, &[]), "one two three");
        assert_eq!(quote("äöüäöüäöü", 4, &[]), "äöüä…");
    }

    #[test]
    fn only_the_first_line_is_repeated() {
        assert_eq!(quote("Refused.\n\nThe Canonical String was\n'POST", SENTENCE, &[]), "Refused.");
        assert_eq!(quote("The Canonical String was:\n'POST", SENTENCE, &[]), "The Canonical String was…");
    }

    #[test]
    fn secrets_and_whatever_follows_the_name_of_the_token_are_left_out() {
        let secret = "wJalrXUtnFEMI/K7MDENG";
        let quoted =
            quote(&format!("{secret} is wrong: host:a X-Amz-Security-Token:FwoGZXIvYXdz"), SENTENCE, &[secret]);
        assert_eq!(quoted, "[secret] is wrong: host:a…");
    }
}
