//! Who is let in by a real OpenSSH server, and whose host keys are believed.

use std::{
    io,
    path::Path,
    sync::{Arc, atomic::Ordering},
};

use ssmssh::ssh::{
    AuthenticationError, HostKeyCheck, HostKeyError, Lost, PrivateKey, SessionBuilder, SshError, StrictHostKeyChecking,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{
    ssh::{Watched, connect, session, within},
    sshd::Sshd,
};

fn vector(name: &str) -> PrivateKey {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/keys").join(name);
    let content = std::fs::read(path).expect("a vector");
    PrivateKey::parse(&content, name, Some("open-sesame")).expect("a key")
}

#[tokio::test]
async fn keys_of_every_type_log_in() {
    let sshd = Sshd::start();
    for name in [
        "rsa.pkcs1.pem",
        "rsa.openssh.encrypted",
        "ec256.sec1.pem",
        "ec384.pkcs8.pem",
        "ec521.openssh",
        "ed25519.pkcs8.pem",
        "rsa.pkcs1.des3.pem",
    ] {
        let key = vector(name);
        sshd.authorize(&key.public_key());
        let session =
            connect(&sshd, sshd.stranger().identity(key)).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(within(session.command("true").status()).await.expect("a status").success(), "{name}");
    }
}

#[tokio::test]
async fn keys_are_tried_in_their_order() {
    let sshd = Sshd::start();
    let builder = sshd.stranger().identity(vector("ec256.openssh")).identity(vector("rsa.pkcs1.pem"));
    assert!(connect(&sshd, builder.identity(sshd.user_key())).await.is_ok());
}

#[tokio::test]
async fn a_refused_login_names_the_user_the_keys_and_what_the_server_accepts() {
    let sshd = Sshd::start();
    let (first, second) = (vector("ed25519.openssh"), vector("rsa.pkcs1.pem"));
    let fingerprints = [first.fingerprint(), second.fingerprint()];
    let error = connect(&sshd, sshd.stranger().identity(first).identity(second)).await.expect_err("refused");
    let SshError::Authentication(AuthenticationError::Refused { user, tried, methods }) = &error else {
        panic!("{error}");
    };
    assert_eq!(*user, Sshd::user());
    assert!(tried.iter().zip(&fingerprints).all(|(tried, fingerprint)| tried.contains(fingerprint)), "{tried:?}");
    assert_eq!(*methods, ["publickey"]);
    assert!(error.to_string().contains("ed25519.openssh"), "{error}");
}

#[tokio::test]
async fn without_a_key_the_error_says_what_the_server_wants() {
    let sshd = Sshd::start();
    let error = connect(&sshd, sshd.stranger()).await.expect_err("refused");
    assert!(matches!(&error, SshError::Authentication(AuthenticationError::NoIdentity { .. })), "{error}");
    assert!(error.to_string().contains("publickey"), "{error}");
}

#[tokio::test]
async fn a_server_that_gives_up_on_us_is_quoted() {
    let sshd = Sshd::with(&["ed25519"], "MaxAuthTries 2");
    let names = ["ed25519.openssh", "ec256.openssh", "ec384.openssh", "ec521.openssh"];
    let builder = names.into_iter().fold(sshd.stranger(), |builder, name| builder.identity(vector(name)));
    let error = connect(&sshd, builder).await.expect_err("refused");
    assert!(matches!(&error, SshError::Authentication(AuthenticationError::Disconnected { .. })), "{error}");
    assert!(error.to_string().contains("Too many authentication failures"), "{error}");
}

#[tokio::test]
async fn a_second_factor_is_named() {
    let sshd = Sshd::with(&["ed25519"], "AuthenticationMethods publickey,publickey");
    let error = connect(&sshd, sshd.client()).await.expect_err("one key is not enough");
    assert!(matches!(&error, SshError::Authentication(AuthenticationError::MoreRequired { .. })), "{error}");
}

#[tokio::test]
async fn a_host_key_is_recorded_once_and_known_from_then_on() {
    let sshd = Sshd::start();
    let first = session(&sshd).await;
    assert!(first.host_key().expect("checked").newly_recorded);
    let again = session(&sshd).await;
    assert!(!again.host_key().expect("checked").newly_recorded);
    let recorded = std::fs::read_to_string(sshd.known_hosts()).expect("written");
    let expected: Vec<_> = sshd.host_key("ed25519").split(' ').take(2).map(str::to_owned).collect();
    assert_eq!(recorded, format!("[node]:{} {}\n", sshd.address().port(), expected.join(" ")));
}

#[tokio::test]
async fn a_changed_host_key_stops_the_connection_before_the_login() {
    let (sshd, other) = (Sshd::start(), Sshd::start());
    let mut record = other.host_key("ed25519");
    record.insert_str(0, &format!("[node]:{} ", sshd.address().port()));
    std::fs::create_dir_all(sshd.known_hosts().parent().expect("a directory")).expect("made");
    std::fs::write(sshd.known_hosts(), record).expect("written");
    let error = connect(&sshd, sshd.client()).await.expect_err("changed");
    assert!(matches!(&error, SshError::HostKey(HostKeyError::Changed { line: 1, .. })), "{error}");
    assert!(!sshd.log().contains("userauth"), "{}", sshd.log());
}

#[tokio::test]
async fn a_short_rsa_host_key_is_refused_before_the_login_whatever_the_policy_and_never_recorded() {
    let sshd = Sshd::with(&["rsa -b 1024"], "RequiredRSASize 1024");
    for policy in [StrictHostKeyChecking::AcceptNew, StrictHostKeyChecking::Off] {
        let check = HostKeyCheck::new(policy, sshd.known_hosts(), "node", sshd.address().port());
        let error = connect(&sshd, sshd.client().host_keys(check)).await.expect_err("weak");
        assert!(matches!(&error, SshError::HostKey(HostKeyError::WeakRsa { bits: 1024, .. })), "{error}");
    }
    assert!(!sshd.known_hosts().exists() && !sshd.log().contains("userauth"), "{}", sshd.log());
}

#[tokio::test]
async fn an_unknown_host_is_refused_when_only_known_ones_may_be_met() {
    let sshd = Sshd::start();
    let check = HostKeyCheck::new(StrictHostKeyChecking::Yes, sshd.known_hosts(), "node", 22);
    let error = connect(&sshd, sshd.client().host_keys(check)).await.expect_err("unknown");
    assert!(matches!(&error, SshError::HostKey(HostKeyError::Unknown { .. })), "{error}");
    let error =
        connect(&sshd, SessionBuilder::new(Sshd::user()).identity(sshd.user_key())).await.expect_err("no policy");
    assert!(matches!(&error, SshError::HostKey(HostKeyError::NoPolicy)), "{error}");
}

#[tokio::test]
async fn the_type_of_host_key_on_record_is_the_one_asked_for() {
    let sshd = Sshd::with(&["ed25519", "rsa", "ecdsa"], "");
    for (key_type, name) in [("rsa", "ssh-rsa"), ("ecdsa", "ecdsa-sha2-nistp256"), ("ed25519", "ssh-ed25519")] {
        let record = format!("[node]:{} {}", sshd.address().port(), sshd.host_key(key_type));
        std::fs::create_dir_all(sshd.known_hosts().parent().expect("a directory")).expect("made");
        std::fs::write(sshd.known_hosts(), record).expect("written");
        let session = session(&sshd).await;
        assert_eq!(session.host_key().expect("checked").key_type, name);
    }
}

#[tokio::test]
async fn a_banner_that_is_not_utf8_is_what_the_error_names() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("banner");
    std::fs::write(&file, b"Zugang nur f\xfcr Befugte\n").expect("written");
    let sshd = Sshd::with(&["ed25519"], &format!("Banner {}", file.display()));
    let error = connect(&sshd, sshd.client()).await.expect_err("russh reads no such text");
    assert!(matches!(error, SshError::Lost(Lost::NotUtf8)), "{error:?}");
    assert!(error.to_string().contains("banner"), "{error}");
}

#[tokio::test]
async fn a_banner_is_shown() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("banner");
    std::fs::write(&file, "keep out\n").expect("written");
    let sshd = Sshd::with(&["ed25519"], &format!("Banner {}", file.display()));
    let (sender, receiver) = std::sync::mpsc::channel();
    let builder = sshd.client().on_banner(move |text| drop(sender.send(text.to_owned())));
    connect(&sshd, builder).await.expect("let in");
    assert_eq!(receiver.recv().expect("a banner").trim_end(), "keep out");
}

#[tokio::test]
async fn an_error_of_the_stream_reaches_the_caller_as_it_was() {
    #[derive(Debug, PartialEq, thiserror::Error)]
    #[error("the tunnel fell in")]
    struct TunnelError;

    let sshd = Sshd::start();
    let stream = Watched::new(TcpStream::connect(sshd.address()).await.expect("it listens"), || TunnelError);
    let broken = Arc::clone(&stream.broken);
    let session = within(sshd.client().connect(stream)).await.expect("let in");
    let mut child = within(session.command("sleep 60").spawn()).await.expect("spawned");
    broken.store(true, Ordering::Release);
    child.stdin.as_mut().expect("stdin").write_all(b"wake up").await.expect("queued");
    let error = within(child.wait()).await.expect_err("no status");
    let inner = error.transport().and_then(io::Error::get_ref).and_then(|inner| inner.downcast_ref::<TunnelError>());
    assert_eq!(inner, Some(&TunnelError), "{error}");
    assert!(within(session.close()).await.is_ok(), "there was nothing left to close");
}

#[tokio::test]
async fn a_login_waits_for_the_server_six_times_and_a_command_twice() {
    let sshd = Sshd::start();
    let stream = Watched::new(TcpStream::connect(sshd.address()).await.expect("it listens"), || "never");
    let waits = Arc::clone(&stream.waits);
    let session = within(sshd.client().connect(stream)).await.expect("let in");
    let login = waits.load(Ordering::Acquire);
    let mut child = within(session.command("echo hello; sleep 60").spawn()).await.expect("spawned");
    within(child.stdout.as_mut().expect("stdout").read_u8()).await.expect("output");
    let command = waits.load(Ordering::Acquire) - login;
    // The server's version, which comes unasked; its KEXINIT, key exchange, service, offer of the key, signature.
    assert!(login <= 6, "the login waited {login} times");
    // Channel, command.
    assert!(command <= 2, "the command waited {command} times");
}
