use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    time::Duration,
};

use proptest::prelude::*;

use super::*;

const PASSPHRASE: &str = "open-sesame";

fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/keys")
}

fn vector(name: &str) -> Vec<u8> {
    fs::read(vectors().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn parse(content: &[u8]) -> Result<PrivateKey, KeyError> {
    PrivateKey::parse(content, "the key", Some(PASSPHRASE))
}

/// The fingerprint that ssh-keygen prints for a vector.
fn fingerprint_of(name: &str) -> String {
    let table = fs::read_to_string(vectors().join("fingerprints.txt")).expect("the table");
    let row = table.lines().filter_map(|row| row.split_once(' ')).find(|(prefix, _)| name.starts_with(prefix));
    row.unwrap_or_else(|| panic!("{name} is not in the table")).1.to_owned()
}

/// A file with this content and mode in a directory of its own.
fn file(content: &[u8], mode: u32) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("key");
    fs::write(&path, content).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("its own file");
    (dir, path)
}

#[test]
fn plain_keys_of_every_format_and_type_are_read() {
    for name in [
        "rsa.pkcs1.pem",
        "rsa.pkcs8.pem",
        "ec256.sec1.pem",
        "ec384.sec1.pem",
        "ec521.sec1.pem",
        "ec256.pkcs8.pem",
        "ec384.pkcs8.pem",
        "ec521.pkcs8.pem",
        "ed25519.pkcs8.pem",
        "ec256.openssh",
        "ec384.openssh",
        "ec521.openssh",
        "ed25519.openssh",
        "rsa.ppk2.ppk",
    ] {
        let (_dir, path) = file(&vector(name), 0o400);
        let opened = KeyFile::open(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(!opened.is_encrypted(), "{name}");
        let key = opened.decode(None).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(key.fingerprint(), fingerprint_of(name), "{name}");
    }
}

#[test]
fn encrypted_keys_of_every_format_and_cipher_are_read_with_their_passphrase_only() {
    for name in [
        "rsa.pkcs1.aes128.pem",
        "rsa.pkcs1.aes192.pem",
        "rsa.pkcs1.aes256.pem",
        "rsa.pkcs1.des3.pem",
        "ec256.sec1.aes128.pem",
        "ec256.sec1.aes192.pem",
        "ec256.sec1.aes256.pem",
        "ec256.sec1.des3.pem",
        "rsa.pkcs8.aes256.pem",
        "rsa.pkcs8.aes128-sha1.pem",
        "rsa.pkcs8.des3-sha1.pem",
        "rsa.pkcs8.scrypt.pem",
        "ec384.pkcs8.aes256.pem",
        "ed25519.pkcs8.aes256.pem",
        "ed25519.openssh.aes128-cbc",
        "ed25519.openssh.aes192-cbc",
        "ed25519.openssh.aes256-cbc",
        "ed25519.openssh.aes128-ctr",
        "ed25519.openssh.aes192-ctr",
        "ed25519.openssh.aes256-ctr",
        "ed25519.openssh.aes128-gcm",
        "ed25519.openssh.aes256-gcm",
        "ed25519.openssh.chacha20-poly1305",
        "rsa.openssh.encrypted",
        "rsa.ppk2.aes256.ppk",
    ] {
        let (_dir, path) = file(&vector(name), 0o400);
        let opened = KeyFile::open(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(opened.is_encrypted(), "{name}");
        assert!(matches!(opened.decode(None), Err(KeyError::PassphraseNeeded { .. })), "{name}");
        let wrong = opened.decode(Some("open-barley"));
        assert!(matches!(wrong, Err(KeyError::WrongPassphrase { .. })), "{name}: {wrong:?}");
        let key = opened.decode(Some(PASSPHRASE)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(key.fingerprint(), fingerprint_of(name), "{name}");
    }
}

#[test]
fn encryption_that_nobody_should_use_says_how_to_replace_it() {
    for name in ["rsa.pkcs8.pbes1.pem", "ed25519.openssh.3des-cbc"] {
        let error = parse(&vector(name)).expect_err(name);
        assert!(matches!(error, KeyError::Unsupported { .. }), "{name}: {error}");
    }
}

#[test]
fn line_ends_leading_text_and_stray_whitespace_do_not_matter() {
    for name in ["rsa.pkcs1.pem", "rsa.pkcs1.aes256.pem", "ec256.sec1.pem", "ed25519.openssh", "rsa.pkcs8.aes256.pem"] {
        let text = String::from_utf8(vector(name)).expect("text");
        let variants = [
            text.replace('\n', "\r\n"),
            text.replace('\n', "\r"),
            format!("\u{feff}{text}"),
            format!("Bag Attributes\n    friendlyName: x\nKey Attributes: <No Attributes>\n{text}\ntrailing\n"),
            format!("\n\n  {}  \n\n", text.trim_end().replace('\n', "  \n\t")),
            text.trim_end().to_owned(),
            format!("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n{text}"),
        ];
        for variant in variants {
            let key = parse(variant.as_bytes()).unwrap_or_else(|error| panic!("{name}: {error}\n{variant}"));
            assert_eq!(key.fingerprint(), fingerprint_of(name), "{name}");
        }
    }
}

#[test]
fn any_permission_but_its_owners_reading_is_refused_with_the_command_that_helps() {
    for mode in [0o600, 0o440, 0o404, 0o644, 0o700, 0o500, 0o401, 0o420, 0o410, 0o200, 0o4400, 0o2400, 0o1400, 0o777] {
        let (_dir, path) = file(&vector("ed25519.openssh"), mode);
        let error = KeyFile::open(&path).expect_err("too open");
        if let KeyError::Unreadable { source, .. } = &error {
            assert_eq!(source.kind(), std::io::ErrorKind::PermissionDenied, "{mode:o}");
            continue;
        }
        let path = quote::path(&path);
        let expected = format!(
            "permissions {mode:04o} of the private key {path} are too open: only you may read it, and nobody may write it; run: chmod 0400 {path}"
        );
        assert!(error.to_string().contains(&expected), "{error}");
    }
}

#[test]
fn permissions_are_judged_before_the_content_and_on_what_a_link_leads_to() {
    let (_dir, path) = file(b"not a key at all", 0o600);
    assert!(matches!(KeyFile::open(&path), Err(KeyError::TooOpen { mode: 0o600, .. })));
    let link = path.with_file_name("link");
    symlink(&path, &link).expect("a link");
    assert!(matches!(KeyFile::open(&link), Err(KeyError::TooOpen { mode: 0o600, .. })));
    fs::write(&path, vector("ed25519.openssh")).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).expect("its own file");
    assert!(KeyFile::open(&link).is_ok());
}

#[test]
fn a_file_of_somebody_else_is_refused() {
    let (_dir, path) = file(&vector("ed25519.openssh"), 0o400);
    let metadata = fs::metadata(&path).expect("there");
    assert!(judge(Ownership::of(&metadata), metadata.uid(), "k").is_ok());
    let result = judge(Ownership::of(&metadata), metadata.uid() + 1, "k");
    if metadata.uid() == 0 {
        assert!(result.is_ok(), "files of root are trusted");
        std::os::unix::fs::chown(&path, Some(4711), None).expect("root may");
        let metadata = fs::metadata(&path).expect("there");
        assert!(matches!(judge(Ownership::of(&metadata), 0, "k"), Err(KeyError::ForeignOwner { owner: 4711, .. })));
    } else {
        assert!(matches!(result, Err(KeyError::ForeignOwner { .. })));
    }
}

#[test]
fn directories_fifos_and_devices_are_refused_at_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let fifo = dir.path().join("fifo");
    let made = std::process::Command::new("mkfifo").arg("-m").arg("400").arg(&fifo).status().expect("mkfifo runs");
    assert!(made.success());
    for (path, what) in [(dir.path(), "a directory"), (&fifo, "a FIFO"), (Path::new("/dev/null"), "a device")] {
        let (sender, receiver) = std::sync::mpsc::channel();
        let opened = path.to_owned();
        std::thread::spawn(move || drop(sender.send(KeyFile::open(opened))));
        let result = receiver.recv_timeout(Duration::from_secs(20)).expect("it does not block");
        assert!(matches!(&result, Err(KeyError::NotAFile { what: is, .. }) if *is == what), "{result:?}");
    }
}

#[test]
fn a_missing_file_says_so() {
    let error = KeyFile::open("/nonexistent/key.pem").expect_err("missing");
    assert!(error.to_string().contains("/nonexistent/key.pem"), "{error}");
    assert!(std::error::Error::source(&error).expect("a source").to_string().contains("No such file"), "{error}");
}

#[test]
fn a_file_larger_than_any_key_is_refused() {
    let (_dir, path) = file(&vec![b'\n'; LARGEST_FILE + 1], 0o400);
    assert!(matches!(KeyFile::open(&path), Err(KeyError::TooLarge { .. })));
}

#[test]
fn every_mistake_has_its_own_message() {
    let whole = vector("rsa.pkcs1.pem");
    let half = &whole[..whole.len() / 2];
    let text = String::from_utf8(whole.clone()).expect("text");
    let hole: Vec<&str> = text.lines().enumerate().filter(|(line, _)| *line != 5).map(|(_, line)| line).collect();
    let public = b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n";
    for (content, expected) in [
        (&b""[..], "is empty"),
        (b" \r\n\n", "is empty"),
        (half, "is cut short"),
        (hole.join("\n").as_bytes(), "is cut short"),
        (b"-----BEGIN RSA PRIV", "is cut short"),
        (b"-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n", "is cut short"),
        (&vector("public.pub"), "is a public key"),
        (public, "is a public key"),
        (b"---- BEGIN SSH2 PUBLIC KEY ----\n", "is a public key"),
        (b"sk-ssh-ed25519@openssh.com AAAA", "is a public key"),
        (&vector("certificate.pub"), "is a certificate"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "is a certificate"),
        (&vector("dsa.pem"), "DSA keys are no longer accepted"),
        (b"0\x82\x04\xa5\x02\x01\x00", "is binary"),
        (b"\xff\xfe-\0-\0", "UTF-16"),
        (b"hello", "is not a private key in a known format"),
        (b"-----BEGIN PRIVATE KEY-----\n!!!!\n-----END PRIVATE KEY-----\n", "is damaged"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "is damaged"),
        (b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n", "is damaged"),
    ] {
        let error = parse(content).expect_err(expected).to_string();
        assert!(error.contains("the key ") && error.contains(expected), "{expected}: {error}");
    }
}

#[test]
fn a_key_in_a_hardware_token_is_refused_by_its_type() {
    let bare = russh::keys::ssh_key::private::SkEd25519::new(
        russh::keys::ssh_key::public::SkEd25519::from(russh::keys::ssh_key::public::Ed25519PublicKey([7; 32])),
        1,
        vec![1, 2, 3],
    );
    let key = russh::keys::PrivateKey::new(bare.expect("short").into(), "").expect("a key");
    let pem = key.to_openssh(russh::keys::ssh_key::LineEnding::LF).expect("encoded");
    let error = parse(pem.as_bytes()).expect_err("a token").to_string();
    assert!(error.contains("sk-ssh-ed25519@openssh.com") && error.contains("hardware token"), "{error}");
}

#[test]
fn neither_debug_nor_errors_show_the_key() {
    let text = vector("ed25519.openssh");
    let key = parse(&text).expect("a key");
    assert_eq!(format!("{key:?}"), format!("PrivateKey(ssh-ed25519 {})", fingerprint_of("ed25519.openssh")));
    let (_dir, path) = file(&text, 0o400);
    assert!(!format!("{:?}", KeyFile::open(path)).contains("b3Blb"));
}

#[test]
fn the_public_half_is_that_of_ssh_keygen() {
    let public = String::from_utf8(vector("public.pub")).expect("text");
    assert_eq!(parse(&vector("ed25519.openssh")).expect("a key").public_key(), public.trim());
}

proptest! {
    #[test]
    fn no_content_makes_the_parser_panic(content in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse(&content);
    }

    #[test]
    fn no_damage_to_a_key_makes_the_parser_panic(at in 0usize..1700, byte in any::<u8>(), pick in 0usize..4) {
        let name = ["rsa.pkcs1.pem", "rsa.pkcs1.aes128.pem", "ec256.sec1.pem", "ed25519.openssh"][pick];
        let mut content = vector(name);
        let at = at % content.len();
        content[at] = byte;
        let _ = parse(&content);
    }
}

#[test]
fn a_key_under_the_name_of_another_format_is_read_as_ssh_reads_it() {
    for (name, labels) in [
        ("rsa.pkcs8.pem", ["PRIVATE KEY", "RSA PRIVATE KEY"]),
        ("rsa.pkcs1.pem", ["RSA PRIVATE KEY", "PRIVATE KEY"]),
        ("ec256.sec1.pem", ["EC PRIVATE KEY", "PRIVATE KEY"]),
        ("ec256.pkcs8.pem", ["PRIVATE KEY", "EC PRIVATE KEY"]),
        ("rsa.pkcs8.aes256.pem", ["ENCRYPTED PRIVATE KEY", "PRIVATE KEY"]),
    ] {
        let text = String::from_utf8(vector(name)).expect("text").replace(labels[0], labels[1]);
        let key = parse(text.as_bytes()).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(key.fingerprint(), fingerprint_of(name), "{name}");
    }
}

#[test]
fn a_key_that_lost_its_lines_is_read_all_the_same() {
    for name in ["rsa.pkcs1.pem", "ed25519.openssh", "ec256.pkcs8.pem", "rsa.pkcs8.aes256.pem"] {
        let text = String::from_utf8(vector(name)).expect("text");
        let text = text.trim();
        let escaped = text.replace('\n', "\\n");
        for (way, tangled) in [
            ("one line", text.replace('\n', " ")),
            ("nothing in between", text.replace('\n', "")),
            ("literal line feeds", escaped.clone()),
            ("doubled backslashes", text.replace('\n', "\\\\r\\\\n")),
            ("double quotes", format!("\"{text}\"\n")),
            ("single quotes and line feeds", format!("'{escaped}'")),
            (
                "JSON",
                format!(
                    "{{\n  \"KeyFingerprint\": \"1f:51\",\n  \"KeyMaterial\": \"{escaped}\",\n  \"KeyName\": \"k\"\n}}\n"
                ),
            ),
            ("an assignment", format!("SSH_KEY=\"{escaped}\"")),
        ] {
            let key = parse(tangled.as_bytes()).unwrap_or_else(|error| panic!("{name}, {way}: {error}"));
            assert_eq!(key.fingerprint(), fingerprint_of(name), "{name}, {way}");
        }
    }
    let cut = String::from_utf8(vector("rsa.pkcs1.pem")).expect("text").replace('\n', " ");
    assert!(matches!(parse(&cut.as_bytes()[..cut.len() / 2]), Err(KeyError::Truncated { .. })));
    let public = "{\"key\": \"-----BEGIN PUBLIC KEY-----\\nMFkw\\n-----END PUBLIC KEY-----\"}";
    assert!(parse(public.as_bytes()).is_err());
}

#[test]
fn a_private_key_of_ssh_com_is_not_called_a_public_one() {
    let file = b"---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----\nComment: \"x\"\nP2/56w==\n---- END SSH2 ENCRYPTED PRIVATE KEY ----\n";
    let error = parse(file).expect_err("not supported");
    assert!(error.to_string().contains("ssh-keygen -i -f FILE"), "{error}");
    let public = parse(b"---- BEGIN SSH2 PUBLIC KEY ----\nAAAA\n---- END SSH2 PUBLIC KEY ----\n").expect_err("public");
    assert!(matches!(public, KeyError::PublicKey { .. }), "{public}");
}
