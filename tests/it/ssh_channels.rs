//! Many channels on one session, and what would end the session with all of them.

use std::time::Duration;

use futures_util::future::join_all;
use ssmssh::ssh::{HostKeyCheck, Pty, PtyMode, Session, SessionBuilder, SshError, StrictHostKeyChecking};

use crate::support::{
    ssh::{connect, session, within},
    sshd::Sshd,
};

async fn prints(session: &Session, text: &str) -> Result<bool, SshError> {
    let output = within(session.command(format!("printf %s {text}")).output()).await?;
    Ok(output.stdout == text.as_bytes())
}

#[tokio::test]
async fn sixty_commands_at_once_all_run_where_the_server_allows_ten() {
    let sshd = Sshd::with(&["ed25519"], "MaxSessions 10");
    let session = session(&sshd).await;
    let texts: Vec<_> = (0..60).map(|number| number.to_string()).collect();
    for ran in within(join_all(texts.iter().map(|text| prints(&session, text)))).await {
        assert!(ran.expect("it ran"));
    }
}

#[tokio::test]
async fn commands_that_wait_run_in_the_order_in_which_they_were_asked_for() {
    let sshd = Sshd::with(&["ed25519"], "MaxSessions 1");
    let session = session(&sshd).await;
    let dir = tempfile::tempdir().expect("a directory");
    let log = dir.path().join("log");
    let commands = (0..20).map(|number| session.command(format!("echo {number} >> {}", log.display())).status());
    for status in within(join_all(commands)).await {
        assert!(status.expect("it ran").success());
    }
    let log = std::fs::read_to_string(log).expect("a log");
    let order: Vec<u32> = log.lines().map(|line| line.parse().expect("a number")).collect();
    assert_eq!(order, (0..20).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_command_that_is_given_up_while_it_waits_takes_nobodys_turn() {
    let sshd = Sshd::with(&["ed25519"], "MaxSessions 1");
    let session = session(&sshd).await;
    let mut open = within(session.command("cat").spawn()).await.expect("the only one");
    {
        let mut waiting = Box::pin(session.command("true").status());
        let given_up = tokio::time::timeout(Duration::from_millis(100), &mut waiting).await;
        assert!(given_up.is_err(), "the only one is still open");
    }
    let (first, second) = tokio::join!(within(session.command("exit 7").status()), async {
        within(open.wait()).await.expect("it has read to its end")
    });
    assert_eq!(first.expect("its turn").code(), Some(7));
    assert!(second.success());
}

#[tokio::test]
async fn without_a_wait_a_refusal_is_the_error_at_once() {
    let sshd = Sshd::with(&["ed25519"], "MaxSessions 1");
    let session = connect(&sshd, sshd.client().channel_wait(Duration::ZERO)).await.expect("let in");
    let open = within(session.command("cat").spawn()).await.expect("the only one");
    let error = within(session.command("true").status()).await.expect_err("no room");
    assert!(matches!(error, SshError::ChannelRefused { .. }), "{error}");
    drop(open);
}

#[tokio::test]
async fn a_command_given_up_while_it_is_opened_leaves_no_channel_open() {
    let sshd = Sshd::with(&["ed25519"], "MaxSessions 1");
    let session = session(&sshd).await;
    for _ in 0..5 {
        let mut opening = Box::pin(session.command("true").spawn());
        assert!(futures_util::poll!(&mut opening).is_pending());
    }
    assert!(prints(&session, "room").await.expect("all of them are closed again"));
}

/// Whatever a caller passes, the session and what runs on it go on.
#[tokio::test]
async fn what_a_server_would_hang_up_over_is_refused_before_it_is_sent() {
    let sshd = Sshd::start();
    let session = session(&sshd).await;
    let mut running = within(session.command("cat").spawn()).await.expect("spawned");
    let long = "x".repeat(300_000);
    for text in [long.as_str(), "a\0b"] {
        let pty = Pty { term: text.to_owned(), ..Pty::default() };
        let refused = [
            within(session.command(text).spawn()).await.err(),
            within(session.command("true").env(text, "x").spawn()).await.err(),
            within(session.command("true").env("TEST_A", text).spawn()).await.err(),
            within(session.shell().pty(pty).spawn()).await.err(),
            within(session.subsystem(text)).await.err(),
            within(running.signal(text)).await.err(),
            connect(&sshd, sshd.client_as(text)).await.err(),
        ];
        for (place, error) in refused.into_iter().enumerate() {
            let error = error.unwrap_or_else(|| panic!("number {place} was sent"));
            let is_named = match &error {
                SshError::TooLong { length: 300_000, limit: 261_120, .. } => error.to_string().contains("261120"),
                SshError::NulByte { .. } => text.len() == 3,
                _ => false,
            };
            assert!(is_named, "number {place}: {error:?}");
        }
    }
    let modes = vec![(PtyMode::ECHO, 0); 60_000];
    let error = within(session.shell().pty(Pty { modes, ..Pty::default() }).spawn()).await.expect_err("too many modes");
    assert!(matches!(error, SshError::TooLong { .. }), "{error:?}");
    assert!(within(running.wait()).await.expect("the session goes on").success());
}

/// The most that is sent is what OpenSSH takes: the command fails by itself, for the system of the node takes less.
#[tokio::test]
async fn the_longest_of_everything_that_is_sent_fails_alone() {
    let sshd = Sshd::start();
    let session = session(&sshd).await;
    let mut running = within(session.command("cat").spawn()).await.expect("spawned");
    let long = "x".repeat(255 << 10);
    let _ = within(session.command(long.as_str()).status()).await;
    let _ = within(session.command("true").env("TEST_A", &long[6..]).status()).await;
    let _ = within(session.shell().pty(Pty { term: long.clone(), ..Pty::default() }).status()).await;
    drop(within(session.subsystem(&long)).await);
    within(running.signal(&long)).await.expect("sent");
    assert!(prints(&session, "alive").await.expect("the session goes on"));
    assert!(within(running.wait()).await.expect("the session goes on").success());
}

#[tokio::test]
async fn more_variables_than_answers_fit_into_a_queue_hold_nothing_up() {
    let sshd = Sshd::start();
    let session = session(&sshd).await;
    let command = (0..500).fold(session.command("true"), |command, number| command.env(format!("V{number}"), "x"));
    let output = within(command.output()).await.expect("output");
    assert_eq!(output.refused_env.len(), 500);
}

#[tokio::test]
async fn output_beyond_the_limit_is_an_error_with_what_came_until_then() {
    let sshd = Sshd::start();
    let session = session(&sshd).await;
    let exact = within(session.command("printf 12345").output_limit(5).output()).await.expect("no more than that");
    assert_eq!(exact.stdout, b"12345");
    for script in ["echo why >&2; exec yes", "echo why >&2; printf 12345678; sleep 3600"] {
        let error = within(session.command(script).output_limit(4).output()).await.expect_err("too much");
        let SshError::OutputTooLong { limit: 4, stdout, stderr } = error else { panic!("{error}") };
        assert!(stdout.len() <= 4 && stderr.len() <= 4 && stdout.len() + stderr.len() >= 4);
    }
    let error = within(session.command("echo x").output_limit(0).output()).await.expect_err("anything is too much");
    assert!(matches!(error, SshError::OutputTooLong { .. }), "{error}");
    let all = within(session.command("head -c 1000000 /dev/zero").output_limit(usize::MAX).output()).await;
    assert_eq!(all.expect("no limit").stdout.len(), 1_000_000);
}

#[tokio::test]
async fn a_builder_is_good_for_another_try_and_another_server() {
    let (one, other) = (Sshd::start(), Sshd::start());
    other.authorize(&one.user_key().public_key());
    let policy = StrictHostKeyChecking::Off;
    let builder = one.client().host_keys(HostKeyCheck::new(policy, "unused".into(), "node", 22));
    for sshd in [&one, &one, &other] {
        let session = connect(sshd, builder.clone()).await.expect("let in");
        assert!(prints(&session, "here").await.expect("it ran"));
    }
}

type Change = fn(SessionBuilder) -> SessionBuilder;

/// The shortest and the longest of each option are defined: a session with them works, or ends in time.
#[tokio::test]
async fn the_zero_and_the_longest_of_every_time_and_number_are_harmless() {
    let sshd = Sshd::start();
    let harmless: [(&str, Change); 9] = [
        ("keepalive(0)", |builder| builder.keepalive(Duration::ZERO)),
        ("keepalive(max)", |builder| builder.keepalive(Duration::MAX)),
        ("keepalive_max(0)", |builder| builder.keepalive(Duration::from_millis(20)).keepalive_max(0)),
        ("keepalive_max(max)", |builder| builder.keepalive(Duration::from_millis(20)).keepalive_max(usize::MAX)),
        ("rekey_after(0, 0)", |builder| builder.rekey_after(0, Duration::ZERO)),
        ("rekey_after(max, max)", |builder| builder.rekey_after(usize::MAX, Duration::MAX)),
        ("login_timeout(max)", |builder| builder.login_timeout(Duration::MAX)),
        ("channel_wait(0)", |builder| builder.channel_wait(Duration::ZERO)),
        ("channel_wait(max)", |builder| builder.channel_wait(Duration::MAX)),
    ];
    for (name, change) in harmless {
        let session = connect(&sshd, change(sshd.client())).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        let output = within(session.command("head -c 300000 /dev/zero; sleep 0.1").output()).await;
        assert_eq!(output.unwrap_or_else(|error| panic!("{name}: {error}")).stdout.len(), 300_000, "{name}");
        within(session.close()).await.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    let error = connect(&sshd, sshd.client().login_timeout(Duration::ZERO)).await.expect_err("no time at all");
    assert!(matches!(error, SshError::LoginTimeout(Duration::ZERO)), "{error}");
}
