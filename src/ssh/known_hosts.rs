//! OpenSSH's known hosts format (`SSH_KNOWN_HOSTS FILE FORMAT` in sshd(8)); pure, over the bytes of a file.

use std::fmt;

use data_encoding::{BASE64, BASE64_NOPAD};
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Digest, Sha256};

/// Length of a hashed name.
const SHA1_LEN: usize = 20;

/// Longest name of a host.
const MAX_HOST: usize = 255;

/// Whether a line of a file can carry this host's name, and nothing but it: no blank ends it, no comma, wildcard, mark or
/// line feed makes another one of it.
pub(super) fn is_host(host: &str) -> bool {
    let may = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:%".contains(&byte);
    (1..=MAX_HOST).contains(&host.len()) && host.bytes().all(may)
}

/// The name of a host in a file: the host alone for port 22, `[host]:port` otherwise.
pub(super) fn host_name(host: &str, port: u16) -> String {
    let host = host.to_ascii_lowercase();
    if port == 22 { host } else { format!("[{host}]:{port}") }
}

/// A line with a key of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    /// Counted from 1.
    pub(super) line: usize,
    pub(super) revoked: bool,
    pub(super) key: HostKeyBlob,
}

/// A line that is about a host and cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Oddity {
    /// Counted from 1.
    pub(super) line: usize,
    pub(super) revoked: bool,
    pub(super) what: &'static str,
}

/// What a file says about a host, in the file's order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Records {
    pub(super) valid: Vec<Record>,
    pub(super) odd: Vec<Oddity>,
}

impl Records {
    /// The types of the keys that the host may show.
    pub(super) fn types(&self) -> impl Iterator<Item = &str> {
        self.valid.iter().filter(|record| !record.revoked).map(|record| record.key.key_type())
    }
}

/// A public key as it goes over the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HostKeyBlob(Vec<u8>);

impl HostKeyBlob {
    /// The bytes must begin with the key's type.
    pub(super) fn new(blob: Vec<u8>) -> Option<Self> {
        type_of(&blob)?;
        Some(Self(blob))
    }

    pub(super) fn key_type(&self) -> &str {
        type_of(&self.0).unwrap_or_default()
    }

    /// As `ssh-keygen -l` prints it.
    pub(super) fn fingerprint(&self) -> String {
        format!("SHA256:{}", BASE64_NOPAD.encode(&Sha256::digest(&self.0)))
    }

    /// The line that records it for a host, without a newline.
    pub(super) fn line_for(&self, name: &str) -> String {
        format!("{name} {} {}", self.key_type(), BASE64.encode(&self.0))
    }
}

impl fmt::Display for HostKeyBlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.key_type(), self.fingerprint())
    }
}

fn type_of(blob: &[u8]) -> Option<&str> {
    let (len, rest) = blob.split_first_chunk::<4>()?;
    let key_type = rest.get(..usize::try_from(u32::from_be_bytes(*len)).ok()?)?;
    str::from_utf8(key_type).ok().filter(|key_type| !key_type.is_empty())
}

/// What the records of a host say about a key that its server shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// On record.
    Known,
    /// The host is not on record at all.
    Unknown,
    /// The host is on record with other keys only; this is the one that comes closest.
    Changed(Record),
    /// Marked `@revoked`.
    Revoked(Record),
    /// What the file says of the host cannot be understood, so nobody knows whether the key is the right one.
    Odd(Oddity),
}

impl Verdict {
    /// The lightest one counts where there are several.
    pub(super) fn weight(&self) -> u8 {
        match self {
            Self::Revoked(_) => 0,
            Self::Odd(oddity) if oddity.revoked => 1,
            Self::Known => 2,
            Self::Changed(_) => 3,
            Self::Odd(_) => 4,
            Self::Unknown => 5,
        }
    }
}

/// Judges a key. A host that is known by keys of other types only counts as changed: the types on record are asked for
/// first, so a server that still had one of those keys would have shown it.
///
/// A line that cannot be understood may revoke the key, or be the record of another one. OpenSSH passes over it.
pub(super) fn judge(records: &Records, shown: &HostKeyBlob) -> Verdict {
    let Records { valid, odd } = records;
    if let Some(record) = valid.iter().find(|record| record.revoked && record.key == *shown) {
        return Verdict::Revoked(record.clone());
    }
    if let Some(oddity) = odd.iter().find(|oddity| oddity.revoked) {
        return Verdict::Odd(oddity.clone());
    }
    let usable = || valid.iter().filter(|record| !record.revoked);
    if usable().any(|record| record.key == *shown) {
        return Verdict::Known;
    }
    let same_type = usable().find(|record| record.key.key_type() == shown.key_type());
    if let Some(record) = same_type.or_else(|| usable().next()) {
        return Verdict::Changed(record.clone());
    }
    odd.first().cloned().map_or(Verdict::Unknown, Verdict::Odd)
}

/// The lines about a host. Only the marker, the hosts, the key's type and its base64 are looked at, as bytes: the comment
/// after them may be anything. Comment lines, and `@cert-authority` lines, whose keys sign host keys but are none, are
/// passed over.
pub(super) fn records(file: &[u8], name: &str) -> Records {
    let mut records = Records::default();
    let file = file.strip_prefix(b"\xef\xbb\xbf").unwrap_or(file);
    for (text, line) in file.split(|&byte| byte == b'\n').zip(1..) {
        match entry(text, name) {
            Entry::NotAbout => {}
            Entry::Key { revoked, key } => records.valid.push(Record { line, revoked, key }),
            Entry::Odd { revoked, what } => records.odd.push(Oddity { line, revoked, what }),
        }
    }
    records
}

/// The file without the lines that name the host itself, and how many these are. What names it by a wildcard, and what
/// revokes keys or names an authority, stays.
pub(super) fn without(file: &[u8], name: &str) -> (Vec<u8>, usize) {
    let (mut rest, mut removed) = (Vec::with_capacity(file.len()), 0);
    for line in file.split_inclusive(|&byte| byte == b'\n') {
        let text = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        let hosts = text.split(u8::is_ascii_whitespace).find(|field| !field.is_empty()).unwrap_or_default();
        let is_wild = hosts.iter().any(|byte| b"*?!@#".contains(byte));
        if !is_wild && is_for(hosts, name) == Some(true) {
            removed += 1;
        } else {
            rest.extend_from_slice(line);
        }
    }
    (rest, removed)
}

enum Entry {
    NotAbout,
    Key { revoked: bool, key: HostKeyBlob },
    Odd { revoked: bool, what: &'static str },
}

fn entry(text: &[u8], name: &str) -> Entry {
    let mut fields = text.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty());
    let Some(first) = fields.next().filter(|first| !first.starts_with(b"#")) else { return Entry::NotAbout };
    let marker = first.starts_with(b"@").then_some(first);
    let hosts = if marker.is_some() { fields.next() } else { Some(first) };
    let revoked = marker.is_some_and(|marker| marker.eq_ignore_ascii_case(b"@revoked"));
    match hosts.map(|hosts| is_for(hosts, name)) {
        Some(Some(false)) => return Entry::NotAbout,
        Some(Some(true)) => {}
        // Whom it revokes cannot be told.
        _ if revoked => return Entry::Odd { revoked, what: "its hosts cannot be understood" },
        _ => return Entry::NotAbout,
    }
    match marker {
        Some(b"@cert-authority") => return Entry::NotAbout,
        Some(other) if other != b"@revoked" => return Entry::Odd { revoked, what: "its marker is unknown" },
        _ => {}
    }
    match key(fields.next(), fields.next()) {
        Ok(key) => Entry::Key { revoked, key },
        Err(what) => Entry::Odd { revoked, what },
    }
}

fn key(key_type: Option<&[u8]>, base64: Option<&[u8]>) -> Result<HostKeyBlob, &'static str> {
    let (Some(key_type), Some(base64)) = (key_type, base64) else { return Err("it has no key") };
    let blob = BASE64.decode(base64).map_err(|_| "its key is not valid base64")?;
    let key = HostKeyBlob::new(blob).ok_or("its key cannot be understood")?;
    if key.key_type().as_bytes() == key_type { Ok(key) } else { Err("its key is not of the type that it names") }
}

/// Whether a line's first field is about this host; nothing if a hashed one cannot be read.
fn is_for(hosts: &[u8], name: &str) -> Option<bool> {
    if let Some(hashed) = hosts.strip_prefix(b"|") {
        return is_hash_of(hashed, name);
    }
    let mut found = false;
    for pattern in hosts.split(|&byte| byte == b',') {
        let (negated, pattern) = pattern.strip_prefix(b"!").map_or((false, pattern), |pattern| (true, pattern));
        if matches(pattern, name.as_bytes()) {
            if negated {
                return Some(false);
            }
            found = true;
        }
    }
    Some(found)
}

/// `1|salt|hash`, the hash being HMAC-SHA1 of the name under the salt.
fn is_hash_of(hashed: &[u8], name: &str) -> Option<bool> {
    let hashed = hashed.strip_prefix(b"1|")?;
    let bar = hashed.iter().position(|&byte| byte == b'|')?;
    let (salt, hash) = (hashed.get(..bar)?, hashed.get(bar + 1..)?);
    let (salt, hash) = (BASE64.decode(salt).ok()?, BASE64.decode(hash).ok().filter(|hash| hash.len() == SHA1_LEN)?);
    let mut mac = Hmac::<Sha1>::new_from_slice(&salt).ok()?;
    mac.update(name.as_bytes());
    Some(mac.verify_slice(&hash).is_ok())
}

/// Matches a pattern with `*` and `?`, whatever the case, in time bounded by the product of the lengths.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut last_star = None;
    while let Some(byte) = name.get(n) {
        match pattern.get(p) {
            Some(b'*') => {
                last_star = Some((p, n));
                p += 1;
            }
            Some(b'?') => (p, n) = (p + 1, n + 1),
            Some(other) if other.eq_ignore_ascii_case(byte) => (p, n) = (p + 1, n + 1),
            _ => match last_star {
                Some((star, from)) => {
                    last_star = Some((star, from + 1));
                    (p, n) = (star + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(p).all(|&byte| byte == b'*')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(key_type: &str, body: &[u8]) -> HostKeyBlob {
        let mut blob = u32::try_from(key_type.len()).expect("short").to_be_bytes().to_vec();
        blob.extend_from_slice(key_type.as_bytes());
        blob.extend_from_slice(body);
        HostKeyBlob::new(blob).expect("a type")
    }

    fn ed(body: &[u8]) -> HostKeyBlob {
        key("ssh-ed25519", body)
    }

    fn verdict(file: &str, name: &str, shown: &HostKeyBlob) -> Verdict {
        judge(&records(file.as_bytes(), name), shown)
    }

    #[test]
    fn a_host_is_named_alone_on_port_22_and_with_its_port_elsewhere() {
        assert_eq!(host_name("i-0AB", 22), "i-0ab");
        assert_eq!(host_name("i-0ab", 2222), "[i-0ab]:2222");
    }

    #[test]
    fn a_recorded_key_is_known_and_another_one_is_a_change() {
        let file = format!("# a comment\n\n{}\r\n", ed(b"1").line_for("[i-1]:2222"));
        assert_eq!(verdict(&file, "[i-1]:2222", &ed(b"1")), Verdict::Known);
        assert_eq!(verdict(&file, "i-1", &ed(b"1")), Verdict::Unknown);
        let Verdict::Changed(record) = verdict(&file, "[i-1]:2222", &ed(b"2")) else { panic!("not a change") };
        assert_eq!((record.line, record.key), (3, ed(b"1")));
    }

    #[test]
    fn a_later_line_counts_as_much_as_the_first() {
        let file = format!("{}\n{}\n", ed(b"1").line_for("h"), ed(b"2").line_for("h"));
        assert_eq!(verdict(&file, "h", &ed(b"2")), Verdict::Known);
        let Verdict::Changed(record) = verdict(&file, "h", &ed(b"3")) else { panic!("not a change") };
        assert_eq!(record.line, 1);
    }

    #[test]
    fn a_key_of_a_type_that_was_never_seen_is_a_change_too() {
        let file = format!("{}\n{}", key("ssh-rsa", b"1").line_for("h"), ed(b"1").line_for("h"));
        let Verdict::Changed(record) = verdict(&file, "h", &key("ecdsa-sha2-nistp256", b"1")) else { panic!() };
        assert_eq!(record.key.key_type(), "ssh-rsa");
        let Verdict::Changed(record) = verdict(&file, "h", &ed(b"2")) else { panic!() };
        assert_eq!(record.line, 2, "the line of the same type tells more");
    }

    #[test]
    fn revocation_outweighs_a_record_and_reaches_by_pattern() {
        let file = format!("{}\n@revoked * {}\n", ed(b"1").line_for("h"), &ed(b"1").line_for("x")[2..]);
        let Verdict::Revoked(record) = verdict(&file, "h", &ed(b"1")) else { panic!("not revoked") };
        assert_eq!(record.line, 2);
        assert!(matches!(verdict(&file, "other", &ed(b"1")), Verdict::Revoked(_)));
        assert_eq!(verdict(&file, "other", &ed(b"2")), Verdict::Unknown, "a revoked key is not a known one");
    }

    #[test]
    fn an_authority_is_no_host_key() {
        let file = format!("@cert-authority {}\n", ed(b"1").line_for("h"));
        assert_eq!(verdict(&file, "h", &ed(b"1")), Verdict::Unknown);
    }

    #[test]
    fn a_comment_may_be_anything() {
        for end in [&b" caf\xe9"[..], b"\t\xff\0", b" caf\xe9\r", b"\r"] {
            let file = [ed(b"1").line_for("h").as_bytes(), end, b"\n"].concat();
            let records = records(&file, "h");
            assert_eq!(judge(&records, &ed(b"1")), Verdict::Known);
            assert!(matches!(judge(&records, &key("ssh-rsa", b"1")), Verdict::Changed(_)), "{end:?}");
            let revoked = [b"@revoked ", file.as_slice()].concat();
            assert!(matches!(judge(&super::records(&revoked, "h"), &ed(b"1")), Verdict::Revoked(_)), "{end:?}");
        }
    }

    #[test]
    fn lists_wildcards_and_negations_are_honoured() {
        for (hosts, name, expected) in [
            ("a,b,[c]:2222", "b", true),
            ("a,b,[c]:2222", "[c]:2222", true),
            ("i-*", "i-0abc", true),
            ("[i-*]:2222", "[i-0abc]:2222", true),
            ("I-0A??", "i-0abc", true),
            ("i-?", "i-12", false),
            ("*,!i-0abc", "i-0abc", false),
            ("!i-0abc,*", "i-1", true),
            ("*a*b*c", "xxaxxbxxbxc", true),
            ("*a*b*c", "xxaxxbxxbx", false),
            ("", "h", false),
        ] {
            assert_eq!(is_for(hosts.as_bytes(), name), Some(expected), "{hosts} {name}");
        }
    }

    #[test]
    fn hashed_names_are_recognised() {
        // Made with `ssh-keygen -H`, for the names `[i-0abc]:2222` and `i-0def`.
        let file = include_bytes!("../../tests/vectors/keys/known_hosts.hashed");
        assert_eq!(records(file, "[i-0abc]:2222").valid.iter().map(|record| record.line).collect::<Vec<_>>(), [1]);
        assert_eq!(records(file, "i-0def").valid.iter().map(|record| record.line).collect::<Vec<_>>(), [2]);
        assert_eq!(records(file, "i-0abc"), Records::default());
    }

    #[test]
    fn a_line_about_the_host_that_cannot_be_understood_is_never_passed_over() {
        let wrong_type = format!("h ssh-rsa {}", BASE64.encode(&ed(b"1").0));
        let unknown_marker = format!("@other {}", ed(b"1").line_for("h"));
        let not_canonical = format!("{}=", ed(b"1").line_for("h"));
        for line in [
            "h",
            "h ssh-ed25519",
            "h ssh-ed25519 !!!",
            "h 1024 35 123456",
            &wrong_type,
            &unknown_marker,
            &not_canonical,
        ] {
            assert!(
                matches!(verdict(line, "h", &ed(b"1")), Verdict::Odd(Oddity { revoked: false, line: 1, .. })),
                "{line}"
            );
            assert_eq!(verdict(line, "other", &ed(b"1")), Verdict::Unknown, "{line}");
            let good = format!("{line}\n{}", ed(b"1").line_for("h"));
            assert_eq!(verdict(&good, "h", &ed(b"1")), Verdict::Known, "{line}");
            assert!(matches!(verdict(&good, "h", &ed(b"2")), Verdict::Changed(_)), "{line}");
        }
    }

    #[test]
    fn what_may_revoke_the_key_outweighs_a_record() {
        let good = ed(b"1").line_for("h");
        for line in
            ["@revoked", "@revoked h", "@revoked * ssh-rsa !!!", "@revoked |1|x|y ssh-rsa AAAA", "@REVOKED h k v"]
        {
            let file = format!("{good}\n{line}\n");
            assert!(
                matches!(verdict(&file, "h", &ed(b"1")), Verdict::Odd(Oddity { revoked: true, line: 2, .. })),
                "{line}"
            );
        }
        assert_eq!(verdict(&format!("{good}\n@revoked other ssh-rsa !!!"), "h", &ed(b"1")), Verdict::Known);
        assert_eq!(verdict(&format!("{good}\n|1|x|y ssh-rsa AAAA"), "h", &ed(b"1")), Verdict::Known);
    }

    #[test]
    fn a_host_is_forgotten_by_its_name_and_nothing_else_goes() {
        let keep = format!("# h\n* k v\n@revoked h k v\n!h,x k v\nother k v caf\u{e9}\n{}", ed(b"1").line_for("hh"));
        let file = format!("h ssh-ed25519 odd\n{keep}\na,h {}\n", &ed(b"1").line_for("x")[2..]);
        assert_eq!(without(file.as_bytes(), "h"), (format!("{keep}\n").into_bytes(), 2));
        let hashed = include_bytes!("../../tests/vectors/keys/known_hosts.hashed");
        let (rest, removed) = without(hashed, "i-0def");
        assert_eq!(
            (removed, records(&rest, "i-0def"), records(&rest, "[i-0abc]:2222").valid.len()),
            (1, Records::default(), 1)
        );
    }

    #[test]
    fn a_byte_order_mark_does_not_hide_the_first_line() {
        let file = [b"\xef\xbb\xbf", ed(b"1").line_for("h").as_bytes()].concat();
        assert!(matches!(judge(&records(&file, "h"), &ed(b"2")), Verdict::Changed(_)));
    }

    #[test]
    fn a_host_is_only_what_a_line_can_carry() {
        for host in ["i-0abc", "mi-0abc", "10.0.0.1", "::1", "fe80::1%eth0", "a_b.example"] {
            assert!(is_host(host), "{host}");
        }
        for host in
            ["", "a b", "a,b", "#x", "!x", "*", "i-?", "|1|a|b", "a\n@cert-authority *", "[a]:1", "@x", "caf\u{e9}"]
        {
            assert!(!is_host(host), "{host}");
        }
        assert!(!is_host(&"x".repeat(256)));
    }

    proptest! {
        #[test]
        fn no_file_makes_the_parser_panic(file in proptest::collection::vec(any::<u8>(), 0..400), name in ".{0,20}") {
            records(&file, &name);
        }

        #[test]
        fn no_line_makes_the_parser_panic(fields in proptest::collection::vec("[@|*?!,=A-Za-z0-9]{0,12}", 0..6)) {
            records(fields.join(" ").as_bytes(), "h");
            records(format!("|1|{}", fields.join("|")).as_bytes(), "h");
        }

        #[test]
        fn what_is_recorded_is_found_again(body in proptest::collection::vec(any::<u8>(), 0..64), host in "[a-z0-9-]{1,20}") {
            let name = host_name(&host, 2022);
            prop_assert!(is_host(&host));
            prop_assert_eq!(verdict(&ed(&body).line_for(&name), &name, &ed(&body)), Verdict::Known);
        }
    }
}
