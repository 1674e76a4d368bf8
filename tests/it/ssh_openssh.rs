//! The SSH client against a real OpenSSH server, over plain TCP.

use std::{
    io,
    path::Path,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use sha2::{Digest, Sha256};
use ssmssh::ssh::{
    AuthenticationError, HostKeyCheck, HostKeyError, Lost, PrivateKey, Pty, PtyMode, Session, SessionBuilder, SshError,
    StrictHostKeyChecking,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, ReadBuf},
    net::TcpStream,
};

use crate::support::sshd::Sshd;

/// Nothing here takes a second; whatever takes this long hangs.
const GENEROUS: Duration = Duration::from_mins(1);

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(GENEROUS, work).await.expect("it hangs")
}

async fn connect(sshd: &Sshd, builder: SessionBuilder) -> Result<Session, SshError> {
    let stream = TcpStream::connect(sshd.address()).await.expect("it listens");
    within(builder.connect(stream)).await
}

async fn session(sshd: &Sshd) -> Session {
    connect(sshd, sshd.client()).await.expect("let in")
}

fn vector(name: &str) -> PrivateKey {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/keys").join(name);
    let content = std::fs::read(path).expect("a vector");
    PrivateKey::parse(&content, name, Some("open-sesame")).expect("a key")
}

#[tokio::test]
async fn a_command_runs_and_its_code_arrives() {
    let sshd = Sshd::start();
    let session = session(&sshd).await;
    for code in [0, 1, 7, 255] {
        let status = within(session.command(format!("exit {code}")).status()).await.expect("a status");
        assert_eq!((status.code(), status.signal(), status.success()), (Some(code), None, code == 0));
    }
    within(session.close()).await.expect("an orderly end");
}

#[tokio::test]
async fn stdout_and_stderr_stay_apart_and_bytes_stay_bytes() {
    let sshd = Sshd::start();
    let command = b"printf '\\377\\000out'; printf 'err \xfe' >&2; exit 3".to_vec();
    let output = within(session(&sshd).await.command(command).output()).await.expect("output");
    assert_eq!(output.stdout, b"\xff\0out");
    assert_eq!(output.stderr, b"err \xfe");
    assert_eq!(output.status.code(), Some(3));
}

#[tokio::test]
async fn a_command_that_a_signal_ended_is_told_from_one_that_exited() {
    let sshd = Sshd::start();
    let status = within(session(&sshd).await.command("kill -TERM $$").status()).await.expect("a status");
    assert_eq!((status.code(), status.signal(), status.success()), (None, Some("TERM"), false));
    assert!(!status.core_dumped());
    assert_eq!(status.to_string(), "killed by SIGTERM");
}

#[tokio::test]
async fn a_signal_reaches_the_command() {
    let sshd = Sshd::start();
    let session = session(&sshd).await;
    let dir = tempfile::tempdir().expect("a directory");
    let stop = dir.path().join("stop");
    let script = format!(
        "trap 'echo caught; exit 5' TERM; echo ready; until [ -e {} ]; do sleep 0.02; done; exit 6",
        stop.display()
    );
    let mut child = within(session.command(script).spawn()).await.expect("spawned");
    let mut lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
    assert_eq!(within(lines.next_line()).await.expect("a line").as_deref(), Some("ready"));
    child.signal("TERM").await;
    // sshd passes signals on for users that it could change to, and ignores them for root.
    let (line, code) = if Sshd::user() == "root" {
        std::fs::write(stop, "").expect("written");
        (None, 6)
    } else {
        (Some("caught"), 5)
    };
    assert_eq!(within(lines.next_line()).await.expect("a line").as_deref(), line);
    assert_eq!(within(child.wait()).await.expect("a status").code(), Some(code));
}

/// Bytes that no compression or confusion survives.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

async fn through_cat(session: &Session, data: &[u8]) -> Vec<u8> {
    let mut child = session.command("cat").spawn().await.expect("spawned");
    let (mut stdin, mut stdout) = (child.stdin.take().expect("stdin"), child.stdout.take().expect("stdout"));
    let write = async {
        stdin.write_all(data).await.expect("cat reads");
        stdin.shutdown().await.expect("end of file");
    };
    let mut echoed = Vec::new();
    let (read, ()) = tokio::join!(stdout.read_to_end(&mut echoed), write);
    read.expect("a clean end");
    assert!(child.wait().await.expect("a status").success());
    echoed
}

#[tokio::test]
async fn eight_megabytes_pass_through_cat_unchanged() {
    let sshd = Sshd::start();
    let data = noise(8 << 20);
    let echoed = within(through_cat(&session(&sshd).await, &data)).await;
    assert_eq!(echoed.len(), data.len());
    assert_eq!(Sha256::digest(echoed), Sha256::digest(data));
}

#[tokio::test]
async fn keys_are_exchanged_anew_under_load() {
    let sshd = Sshd::with(&["ed25519"], "RekeyLimit 1M");
    let data = noise(8 << 20);
    for interactive in [false, true] {
        let session = connect(&sshd, sshd.client().interactive(interactive)).await.expect("let in");
        assert_eq!(Sha256::digest(within(through_cat(&session, &data)).await), Sha256::digest(&data));
    }
}

#[tokio::test]
async fn many_commands_run_side_by_side() {
    let sshd = Sshd::start();
    let session = session(&sshd).await;
    let data = noise(256 * 1024);
    let all = futures_util::future::join_all((0..20).map(|_| through_cat(&session, &data)));
    assert!(within(all).await.iter().all(|echoed| *echoed == data));
}

#[tokio::test]
async fn a_terminal_has_the_size_it_was_given_and_follows_a_resize() {
    let sshd = Sshd::start();
    let session = connect(&sshd, sshd.client().interactive(true)).await.expect("let in");
    let script = "echo $TERM; stty size; trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.02; done";
    let pty = Pty {
        term: "vt220".to_owned(),
        cols: 132,
        rows: 43,
        modes: vec![(PtyMode::ECHO, 0), (PtyMode::TTY_OP_ISPEED, 38400)],
        ..Pty::default()
    };
    let mut child = within(session.command(script).pty(pty).spawn()).await.expect("spawned");
    let mut lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
    let mut seen = Vec::new();
    while let Some(line) = within(lines.next_line()).await.expect("a line") {
        if line == "ready" {
            child.resize(90, 30, 0, 0).await;
        }
        seen.push(line);
    }
    assert_eq!(seen, ["vt220", "43 132", "ready", "30 90"]);
    assert!(within(child.wait()).await.expect("a status").success());
}

#[tokio::test]
async fn a_shell_reads_its_commands_from_stdin() {
    let sshd = Sshd::start();
    let session = session(&sshd).await;
    let mut child = within(session.shell().spawn()).await.expect("spawned");
    child.stdin.as_mut().expect("stdin").write_all(b"echo hello; exit 9\n").await.expect("written");
    let mut text = String::new();
    within(child.stdout.take().expect("stdout").read_to_string(&mut text)).await.expect("read");
    assert!(text.contains("hello"), "{text}");
    assert_eq!(within(child.wait()).await.expect("a status").code(), Some(9));
}

#[tokio::test]
async fn variables_that_the_server_accepts_arrive() {
    let sshd = Sshd::start();
    let session = session(&sshd).await;
    let command = session.command("echo \"$TEST_A-$OTHER\"").env("TEST_A", "one two").env("OTHER", "x");
    assert_eq!(within(command.output()).await.expect("output").stdout, b"one two-\n");
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
async fn a_connection_that_dies_is_an_error_and_never_a_status() {
    let sshd = Sshd::start();
    let session = session(&sshd).await;
    let mut child = within(session.command("echo started; kill -KILL $PPID; sleep 60").spawn()).await.expect("spawned");
    let mut stdout = child.stdout.take().expect("stdout");
    let mut text = Vec::new();
    let read = within(stdout.read_to_end(&mut text)).await.expect_err("no clean end");
    assert!(matches!(SshError::from_io(&read), Some(SshError::Lost(_))), "{read}");
    let error = within(child.wait()).await.expect_err("no status");
    assert!(matches!(error, SshError::Lost(_)), "{error}");
    let error = within(session.command("true").status()).await.expect_err("it is gone");
    assert!(matches!(error, SshError::Lost(_)), "{error}");
    assert!(session.is_closed());
}

#[tokio::test]
async fn what_is_written_to_a_command_that_has_ended_is_refused() {
    let sshd = Sshd::start();
    let session = session(&sshd).await;
    let mut child = within(session.command("exec true").spawn()).await.expect("spawned");
    let mut stdin = child.stdin.take().expect("stdin");
    let error = within(async {
        loop {
            if let Err(error) = stdin.write_all(&vec![0; 65536]).await {
                break error;
            }
        }
    });
    assert_eq!(error.await.kind(), io::ErrorKind::BrokenPipe);
    assert!(within(child.wait()).await.expect("a status").success());
}

#[tokio::test]
async fn output_that_nobody_wants_holds_nothing_up() {
    let sshd = Sshd::start();
    let session = session(&sshd).await;
    let noisy = session.command("head -c 20000000 /dev/zero; head -c 20000000 /dev/zero >&2; exit 4");
    assert_eq!(within(noisy.status()).await.expect("a status").code(), Some(4));
}

#[tokio::test]
async fn a_reader_that_pauses_gets_everything_in_the_end() {
    let sshd = Sshd::start();
    let session = session(&sshd).await;
    let mut child = within(session.command("head -c 20000000 /dev/zero").spawn()).await.expect("spawned");
    let mut stdout = child.stdout.take().expect("stdout");
    let mut first = [0; 1000];
    within(stdout.read_exact(&mut first)).await.expect("a beginning");
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut rest = Vec::new();
    within(stdout.read_to_end(&mut rest)).await.expect("a clean end");
    assert_eq!(first.len() + rest.len(), 20_000_000);
}

#[tokio::test]
async fn dropping_a_command_closes_its_channel_and_ends_it() {
    let sshd = Sshd::start();
    let session = session(&sshd).await;
    let dir = tempfile::tempdir().expect("a directory");
    let gone = dir.path().join("gone");
    let script = format!("trap 'touch {}; exit' HUP PIPE; while :; do echo x; sleep 0.02; done", gone.display());
    let mut child = within(session.command(script).spawn()).await.expect("spawned");
    within(child.stdout.as_mut().expect("stdout").read_u8()).await.expect("it runs");
    drop(child);
    within(async {
        while !gone.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn closing_the_session_ends_a_flood_that_nobody_reads() {
    let sshd = Sshd::start();
    let session = session(&sshd).await;
    let mut child = within(session.command("cat /dev/zero").spawn()).await.expect("spawned");
    within(child.stdout.as_mut().expect("stdout").read_u8()).await.expect("it runs");
    within(session.close()).await.expect("an orderly end");
    let error = within(child.wait()).await.expect_err("no status");
    assert!(matches!(error, SshError::Lost(Lost::Closed)), "{error}");
}

#[tokio::test]
async fn what_the_server_refuses_is_named() {
    let sshd = Sshd::with(&["ed25519"], "PermitTTY no");
    let session = session(&sshd).await;
    let mut child = within(session.shell().pty(Pty::default()).spawn()).await.expect("spawned");
    let error = within(child.wait()).await.expect_err("refused");
    assert_eq!(error.to_string(), "the SSH server refused the request for a pseudo-terminal");
    let mut subsystem = within(session.subsystem("nonsense")).await.expect("a channel");
    let error = within(subsystem.read_u8()).await.expect_err("refused");
    assert!(matches!(SshError::from_io(&error), Some(SshError::RequestRefused { .. })), "{error}");
    assert!(within(session.command("true").status()).await.expect("a status").success(), "the session goes on");
    let none = Sshd::with(&["ed25519"], "MaxSessions 0");
    let session = connect(&none, none.client()).await.expect("let in");
    let error = within(session.command("true").status()).await.expect_err("refused");
    assert!(matches!(error, SshError::ChannelRefused { .. }), "{error}");
}

#[tokio::test]
async fn the_sftp_subsystem_answers() {
    let sshd = Sshd::start();
    let mut sftp = within(session(&sshd).await.subsystem("sftp")).await.expect("a channel");
    sftp.write_all(b"\0\0\0\x05\x01\0\0\0\x03").await.expect("written");
    let mut version = [0; 9];
    within(sftp.read_exact(&mut version)).await.expect("an answer");
    assert_eq!(version[4..], [2, 0, 0, 0, 3]);
    sftp.shutdown().await.expect("end of file");
    let mut rest = Vec::new();
    within(sftp.read_to_end(&mut rest)).await.expect("a clean end");
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

/// A stream that counts how often its reader waits for an answer to what was written, and that can be broken.
struct Watched<E> {
    stream: TcpStream,
    waits: Arc<AtomicUsize>,
    turn: Turn,
    broken: Arc<AtomicBool>,
    error: fn() -> E,
}

#[derive(Clone, Copy)]
enum Turn {
    Wrote,
    Waits,
    Read,
}

impl<E: Into<Box<dyn std::error::Error + Send + Sync>>> Watched<E> {
    fn new(stream: TcpStream, error: fn() -> E) -> Self {
        Self { stream, waits: Arc::default(), turn: Turn::Read, broken: Arc::default(), error }
    }

    fn check(&self) -> io::Result<()> {
        if self.broken.load(Ordering::Acquire) {
            return Err(io::Error::new(io::ErrorKind::TimedOut, (self.error)()));
        }
        Ok(())
    }
}

impl<E: Into<Box<dyn std::error::Error + Send + Sync>>> AsyncRead for Watched<E> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        let result = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.turn = match (self.turn, &result) {
            (Turn::Wrote, Poll::Pending) => Turn::Waits,
            (Turn::Waits, Poll::Ready(_)) => {
                self.waits.fetch_add(1, Ordering::AcqRel);
                Turn::Read
            }
            (_, Poll::Ready(_)) => Turn::Read,
            (turn, Poll::Pending) => turn,
        };
        result
    }
}

impl<E: Into<Box<dyn std::error::Error + Send + Sync>>> AsyncWrite for Watched<E> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check()?;
        self.turn = Turn::Wrote;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
