//! The wrappings of a private key: which format a file has, and the bytes inside.

use data_encoding::{BASE64, HEXUPPER_PERMISSIVE};
use zeroize::Zeroizing;

use super::error::Fault;

/// The bytes of a key, wiped when dropped.
pub(super) type Secret = Zeroizing<Vec<u8>>;

/// What a file holds, as far as can be told without a passphrase.
pub(super) enum Container {
    OpenSsh(Secret),
    Pkcs1(Secret),
    Sec1(Secret),
    Pkcs8(Secret),
    EncryptedPkcs8(Secret),
    /// `Proc-Type: 4,ENCRYPTED`, the way OpenSSL encrypted PKCS#1 and SEC1 before PKCS#8.
    Legacy {
        of: LegacyKind,
        cipher: String,
        iv: Vec<u8>,
        body: Secret,
    },
    Ppk(Zeroizing<String>),
}

/// What is inside a legacy encrypted PEM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LegacyKind {
    Pkcs1,
    Sec1,
}

impl Container {
    pub(super) fn is_encrypted(&self) -> bool {
        match self {
            Self::OpenSsh(body) => openssh_cipher(body) != Some(b"none"),
            Self::EncryptedPkcs8(_) | Self::Legacy { .. } => true,
            Self::Ppk(text) => !text.lines().any(|line| line.trim_end() == "Encryption: none"),
            Self::Pkcs1(_) | Self::Sec1(_) | Self::Pkcs8(_) => false,
        }
    }
}

const BEGIN: &[u8] = b"-----BEGIN ";
const DASHES: &[u8] = b"-----";
/// The longest name of a block is `ENCRYPTED PRIVATE KEY`.
const MAX_LABEL: usize = 32;
const OPENSSH_MAGIC: &[u8] = b"openssh-key-v1\0";

/// The cipher's name: the first field after the magic.
pub(super) fn openssh_cipher(body: &[u8]) -> Option<&[u8]> {
    let (len, rest) = body.strip_prefix(OPENSSH_MAGIC)?.split_first_chunk::<4>()?;
    rest.get(..usize::try_from(u32::from_be_bytes(*len)).ok()?)
}

/// Finds the first private key in a file. Text before it, other blocks and every kind of line end are tolerated.
pub(super) fn parse(file: &[u8]) -> Result<Container, Fault> {
    if file.starts_with(b"\xff\xfe") || file.starts_with(b"\xfe\xff") {
        return Err(Fault::Unsupported("it is UTF-16 text; save it as plain text".to_owned()));
    }
    let file = file.strip_prefix(b"\xef\xbb\xbf").unwrap_or(file).trim_ascii();
    if file.is_empty() {
        return Err(Fault::Empty);
    }
    if file.starts_with(b"PuTTY-User-Key-File-") {
        let text = str::from_utf8(file).map_err(|_| Fault::Damaged("it is not text".to_owned()))?;
        return Ok(Container::Ppk(Zeroizing::new(text.to_owned())));
    }
    let found = first_block(file);
    if let Err(Fault::NotAKey | Fault::Truncated) = &found
        && let Some(file) = untangle(file)
    {
        return first_block(&file);
    }
    found
}

/// The first private key in lines as they ought to be.
fn first_block(file: &[u8]) -> Result<Container, Fault> {
    let mut lines = Lines { rest: file };
    let mut seen = None;
    while let Some(line) = lines.next() {
        let Some(label) = begin_label(line) else {
            continue;
        };
        match label {
            b"OPENSSH PRIVATE KEY"
            | b"RSA PRIVATE KEY"
            | b"EC PRIVATE KEY"
            | b"PRIVATE KEY"
            | b"ENCRYPTED PRIVATE KEY" => return Block::read(&mut lines, label)?.into_container(label),
            b"DSA PRIVATE KEY" => return Err(unsupported("DSA keys are no longer accepted by SSH servers")),
            _ if label.ends_with(b"PUBLIC KEY") => seen = Some(Fault::PublicKey),
            _ if label.ends_with(b"CERTIFICATE") => seen = Some(Fault::Certificate),
            _ => {}
        }
    }
    Err(seen.unwrap_or_else(|| without_block(file)))
}

fn unsupported(what: &str) -> Fault {
    Fault::Unsupported(what.to_owned())
}

/// A private key that lost its lines on the way: all in one, with `\\n` in place of line feeds, in quotes, or inside a JSON
/// text such as the answer of `aws ec2 create-key-pair`. Gives it back in lines.
fn untangle(file: &[u8]) -> Option<Secret> {
    let mut rest = file;
    loop {
        let (_, behind) = split_at(rest, BEGIN)?;
        let (label, body) = split_at(behind, DASHES)?;
        rest = behind;
        if !label.ends_with(b"PRIVATE KEY") || label.len() > MAX_LABEL {
            continue;
        }
        let (body, _) = split_at(body, b"-----END ")?;
        let mut lines = Zeroizing::new(Vec::with_capacity(file.len() + 2 * MAX_LABEL + 64));
        for part in [BEGIN, label, DASHES, b"\n"] {
            lines.extend_from_slice(part);
        }
        unescape(body, &mut lines);
        for part in [b"\n-----END ", label, DASHES, b"\n"] {
            lines.extend_from_slice(part);
        }
        return Some(lines);
    }
}

/// What stands before and behind the first `mark`.
fn split_at<'a>(text: &'a [u8], mark: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = text.windows(mark.len()).position(|window| window == mark)?;
    Some((&text[..at], &text[at + mark.len()..]))
}

/// Line feeds for `\\n` and `\\r`, however often the backslash is doubled, and no quotes.
fn unescape(body: &[u8], into: &mut Secret) {
    let mut is_escape = false;
    for &byte in body {
        match byte {
            b'\\' => is_escape = true,
            b'n' | b'r' if is_escape => {
                into.push(b'\n');
                is_escape = false;
            }
            b'"' | b'\'' => is_escape = false,
            other => {
                into.push(other);
                is_escape = false;
            }
        }
    }
}

/// What a file is that holds no PEM block of interest.
fn without_block(file: &[u8]) -> Fault {
    let first = file.split(|byte| b" \t\r\n".contains(byte)).next().unwrap_or_default();
    let is_key_type = [&b"ssh-"[..], b"ecdsa-sha2-", b"sk-"].iter().any(|prefix| first.starts_with(prefix));
    if contains(file, b"BEGIN SSH2 ENCRYPTED PRIVATE KEY") {
        unsupported(
            "it is in the format of ssh.com; convert it with: ssh-keygen -i -f FILE, without a passphrase on it",
        )
    } else if is_key_type && first.ends_with(b"-cert-v01@openssh.com") {
        Fault::Certificate
    } else if is_key_type || first == b"----" {
        Fault::PublicKey
    } else if contains(file, b"-----BEGIN") {
        Fault::Truncated
    } else if file.first() == Some(&0x30) {
        unsupported("it is binary (DER or PKCS#12); convert it to PEM with openssl")
    } else {
        Fault::NotAKey
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

/// Trimmed lines; LF, CR and CRLF end them.
struct Lines<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.rest.is_empty() {
            return None;
        }
        let end = self.rest.iter().position(|byte| b"\r\n".contains(byte));
        let (line, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest.get(1..).unwrap_or_default();
        Some(line.trim_ascii())
    }
}

fn begin_label(line: &[u8]) -> Option<&[u8]> {
    line.strip_prefix(b"-----BEGIN ")?.strip_suffix(b"-----")
}

/// A PEM block, up to its END line.
struct Block<'a> {
    cipher: Option<&'a str>,
    iv: Vec<u8>,
    body: Secret,
}

impl<'a> Block<'a> {
    fn read(lines: &mut Lines<'a>, label: &[u8]) -> Result<Self, Fault> {
        let mut base64 = Zeroizing::new(Vec::with_capacity(lines.rest.len()));
        let mut dek_info = None;
        for line in lines {
            if line.starts_with(b"-----END ") {
                let body = decode(&base64)?;
                let (cipher, iv) = dek_info.map(dek).transpose()?.unzip();
                check_length(label, cipher, &body)?;
                return Ok(Self { cipher, iv: iv.unwrap_or_default(), body });
            }
            if let Some(info) = line.strip_prefix(b"DEK-Info:") {
                dek_info = Some(info);
            } else if !line.contains(&b':') {
                base64.extend(line.iter().filter(|byte| !byte.is_ascii_whitespace()));
            }
        }
        Err(Fault::Truncated)
    }

    fn into_container(self, label: &[u8]) -> Result<Container, Fault> {
        let Self { cipher, iv, body } = self;
        let of = if label == b"EC PRIVATE KEY" { LegacyKind::Sec1 } else { LegacyKind::Pkcs1 };
        // Some programs write the one under the name of the other, and ssh reads what is there.
        match (label, cipher, inside(&body)) {
            (b"OPENSSH PRIVATE KEY", _, _) | (_, Some(_), _) | (_, _, None) => {}
            (_, None, Some(Inside::Pkcs1)) => return Ok(Container::Pkcs1(body)),
            (_, None, Some(Inside::Sec1)) => return Ok(Container::Sec1(body)),
            (_, None, Some(Inside::Pkcs8)) => return Ok(Container::Pkcs8(body)),
            (_, None, Some(Inside::EncryptedPkcs8)) => return Ok(Container::EncryptedPkcs8(body)),
        }
        match (label, cipher) {
            (b"OPENSSH PRIVATE KEY", _) if openssh_cipher(&body).is_some() => Ok(Container::OpenSsh(body)),
            (b"OPENSSH PRIVATE KEY", _) => Err(Fault::Damaged("it is not in OpenSSH's format".to_owned())),
            (b"ENCRYPTED PRIVATE KEY", _) => Ok(Container::EncryptedPkcs8(body)),
            (b"PRIVATE KEY", _) => Ok(Container::Pkcs8(body)),
            (_, Some(cipher)) => Ok(Container::Legacy { of, cipher: cipher.to_owned(), iv, body }),
            (b"EC PRIVATE KEY", None) => Ok(Container::Sec1(body)),
            (_, None) => Ok(Container::Pkcs1(body)),
        }
    }
}

/// What a DER body is by its first fields.
enum Inside {
    Pkcs1,
    Sec1,
    Pkcs8,
    EncryptedPkcs8,
}

fn inside(der: &[u8]) -> Option<Inside> {
    let header = match *der.get(1)? {
        first @ 0x81..=0x84 => 2 + usize::from(first & 0x7f),
        _ => 2,
    };
    match *der.get(header..)? {
        [2, 1, 0, 2, ..] => Some(Inside::Pkcs1),
        [2, 1, 1, 4, ..] => Some(Inside::Sec1),
        [2, 1, 0 | 1, 0x30, ..] => Some(Inside::Pkcs8),
        [0x30, ..] => Some(Inside::EncryptedPkcs8),
        _ => None,
    }
}

fn decode(base64: &[u8]) -> Result<Secret, Fault> {
    if !base64.len().is_multiple_of(4) || base64.is_empty() {
        return Err(Fault::Truncated);
    }
    let damaged = || Fault::Damaged("it is not base64".to_owned());
    let room = BASE64.decode_len(base64.len()).map_err(|_| damaged())?;
    let mut body = Zeroizing::new(vec![0; room]);
    let len = BASE64.decode_mut(base64, &mut body).map_err(|_| damaged())?;
    body.truncate(len);
    Ok(body)
}

/// `CIPHER,IV` of a `DEK-Info` header.
fn dek(info: &[u8]) -> Result<(&str, Vec<u8>), Fault> {
    let damaged = || Fault::Damaged("its DEK-Info line makes no sense".to_owned());
    let (cipher, iv) = str::from_utf8(info).ok().and_then(|info| info.split_once(',')).ok_or_else(damaged)?;
    let iv = HEXUPPER_PERMISSIVE.decode(iv.trim().as_bytes()).map_err(|_| damaged())?;
    Ok((cipher.trim(), iv))
}

/// DER says how long it is: lines that are missing in the middle show.
fn check_length(label: &[u8], cipher: Option<&str>, body: &[u8]) -> Result<(), Fault> {
    if label == b"OPENSSH PRIVATE KEY" || cipher.is_some() {
        return Ok(());
    }
    match der_length(body) {
        Some(declared) if declared > body.len() => Err(Fault::Truncated),
        Some(_) => Ok(()),
        None => Err(Fault::Damaged("it is not DER".to_owned())),
    }
}

/// The length of the sequence at the front, with its header.
fn der_length(der: &[u8]) -> Option<usize> {
    let rest = der.strip_prefix(&[0x30])?;
    let (&first, rest) = rest.split_first()?;
    if first < 0x80 {
        return Some(2 + usize::from(first));
    }
    let octets = usize::from(first & 0x7f);
    if octets == 0 || octets > 3 {
        return None;
    }
    let length = rest.get(..octets)?.iter().fold(0, |length, &octet| length << 8 | usize::from(octet));
    Some(2 + octets + length)
}
