//! OpenSSH's known hosts format (`SSH_KNOWN_HOSTS FILE FORMAT` in sshd(8)); pure, over the bytes of a file.

use std::fmt;

use data_encoding::{BASE64, BASE64_NOPAD};
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Digest, Sha256};

/// The name of a host in a file: the host alone for port 22, `[host]:port` otherwise.
pub(super) fn host_name(host: &str, port: u16) -> String {
    let host = host.to_ascii_lowercase();
    if port == 22 { host } else { format!("[{host}]:{port}") }
}

/// A line that says something about a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    /// Counted from 1.
    pub(super) line: usize,
    pub(super) revoked: bool,
    pub(super) key: HostKeyBlob,
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
}

/// Judges a key. A host that is known by keys of other types only counts as changed: the types on record are asked for
/// first, so a server that still had one of those keys would have shown it.
pub(super) fn judge(records: &[Record], shown: &HostKeyBlob) -> Verdict {
    if let Some(record) = records.iter().find(|record| record.revoked && record.key == *shown) {
        return Verdict::Revoked(record.clone());
    }
    let valid = || records.iter().filter(|record| !record.revoked);
    if valid().any(|record| record.key == *shown) {
        return Verdict::Known;
    }
    let same_type = valid().find(|record| record.key.key_type() == shown.key_type());
    same_type.or_else(|| valid().next()).cloned().map_or(Verdict::Unknown, Verdict::Changed)
}

/// The lines about a host, in the file's order. Comments, lines that make no sense and `@cert-authority` lines, whose keys
/// sign host keys but are none, are passed over.
pub(super) fn records(file: &[u8], name: &str) -> Vec<Record> {
    let lines = file.split(|&byte| byte == b'\n').zip(1..);
    lines.filter_map(|(text, line)| record(str::from_utf8(text).ok()?, line, name)).collect()
}

fn record(text: &str, line: usize, name: &str) -> Option<Record> {
    let mut fields = text.split_ascii_whitespace();
    let first = fields.next().filter(|first| !first.starts_with('#'))?;
    let (revoked, hosts) = match first {
        "@revoked" => (true, fields.next()?),
        marker if marker.starts_with('@') => return None,
        hosts => (false, hosts),
    };
    if !is_for(hosts, name) {
        return None;
    }
    let key_type = fields.next()?;
    let key = HostKeyBlob::new(BASE64.decode(fields.next()?.as_bytes()).ok()?)?;
    (key.key_type() == key_type).then_some(Record { line, revoked, key })
}

/// Whether a line's first field is about this host.
fn is_for(hosts: &str, name: &str) -> bool {
    if let Some(hashed) = hosts.strip_prefix("|1|") {
        return is_hash_of(hashed, name).unwrap_or(false);
    }
    let mut found = false;
    for pattern in hosts.split(',') {
        let (negated, pattern) = pattern.strip_prefix('!').map_or((false, pattern), |pattern| (true, pattern));
        if matches(pattern.as_bytes(), name.as_bytes()) {
            if negated {
                return false;
            }
            found = true;
        }
    }
    found
}

/// `salt|hash`, the hash being HMAC-SHA1 of the name under the salt.
fn is_hash_of(hashed: &str, name: &str) -> Option<bool> {
    let (salt, hash) = hashed.split_once('|')?;
    let salt = BASE64.decode(salt.as_bytes()).ok()?;
    let hash = BASE64.decode(hash.as_bytes()).ok()?;
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
        let file = format!("@cert-authority {}\n@other {}\n", ed(b"1").line_for("h"), ed(b"1").line_for("h"));
        assert_eq!(verdict(&file, "h", &ed(b"1")), Verdict::Unknown);
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
            assert_eq!(is_for(hosts, name), expected, "{hosts} {name}");
        }
    }

    #[test]
    fn hashed_names_are_recognised() {
        // Made with `ssh-keygen -H`, for the names `[i-0abc]:2222` and `i-0def`.
        let file = include_bytes!("../../tests/vectors/keys/known_hosts.hashed");
        assert_eq!(records(file, "[i-0abc]:2222").iter().map(|record| record.line).collect::<Vec<_>>(), [1]);
        assert_eq!(records(file, "i-0def").iter().map(|record| record.line).collect::<Vec<_>>(), [2]);
        assert_eq!(records(file, "i-0abc"), []);
    }

    #[test]
    fn lines_that_make_no_sense_are_passed_over() {
        let good = ed(b"1").line_for("h");
        let file =
            format!("h\nh ssh-ed25519\nh ssh-ed25519 !!!\nh ssh-rsa {}\nh 1024 35 123456\n|1|x|y k v\n{good}", {
                BASE64.encode(&ed(b"1").0)
            });
        assert_eq!(records(file.as_bytes(), "h").iter().map(|record| record.line).collect::<Vec<_>>(), [7]);
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
            prop_assert_eq!(verdict(&ed(&body).line_for(&name), &name, &ed(&body)), Verdict::Known);
        }
    }
}
