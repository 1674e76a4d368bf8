//! Commands, terminals and subsystems on a real OpenSSH server.

use std::{io, time::Duration};

use sha2::{Digest, Sha256};
use ssmssh::ssh::{Lost, Pty, PtyMode, Session, SshError};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

use crate::support::{
    ssh::{connect, session, within},
    sshd::Sshd,
};

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
    within(child.signal("TERM")).await.expect("a name");
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
async fn variables_that_the_server_accepts_arrive_and_the_others_are_named() {
    let sshd = Sshd::start();
    let session = session(&sshd).await;
    let command = session.command("echo \"$TEST_A-$OTHER\"").env("TEST_A", "one two").env("OTHER", "x");
    let output = within(command.output()).await.expect("output");
    assert_eq!((output.stdout.as_slice(), output.refused_env), (&b"one two-\n"[..], vec!["OTHER".to_owned()]));
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
    let all = (0..5).map(|_| session.command("true").status());
    for refused in within(futures_util::future::join_all(all)).await {
        let error = refused.expect_err("refused");
        assert!(matches!(error, SshError::ChannelRefused { .. }), "{error}");
        assert!(error.to_string().contains("MaxSessions"), "{error}");
    }
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
