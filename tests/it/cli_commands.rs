//! `ssmssh` with a command: exit status, streams, signals.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

use crate::support::cli::{Cli, all_sessions_over, eventually, fast_lab, noise};

#[tokio::test(flavor = "multi_thread")]
async fn the_exit_status_is_the_remote_commands() {
    let lab = fast_lab().await;
    for (command, code) in [("true", 0), ("exit 7", 7), ("exit 255", 255), ("kill -TERM $$", 143), ("kill -9 $$", 137)]
    {
        let ran = Cli::in_lab(&lab).args([lab.node(), command]).run().await;
        assert_eq!(ran.code, Some(code), "{command}: {}", ran.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn when_it_returns_the_session_is_over() {
    let lab = fast_lab().await;
    assert_eq!(Cli::in_lab(&lab).args([lab.node(), "true"]).run().await.code, Some(0));
    all_sessions_over(&lab).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stdout_carries_the_commands_bytes_and_nothing_else() {
    let lab = fast_lab().await;
    let ran = Cli::in_lab(&lab).args(["-vv", lab.node(), "printf 'out\\0'; echo err >&2"]).run().await;
    assert_eq!(ran.stdout, b"out\0");
    assert!(ran.stderr.lines().any(|line| line == "err"), "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn binary_data_passes_both_ways_intact() {
    let lab = fast_lab().await;
    let data = noise(8 << 20);
    let ran = Cli::in_lab(&lab).args([lab.node(), "cat"]).run_with(&data).await;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stdout == data, "{} bytes came back of {}", ran.stdout.len(), data.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn output_goes_on_after_the_end_of_input() {
    let lab = fast_lab().await;
    let command = "wc -c; echo later; sleep 0.1; echo last";
    let ran = Cli::in_lab(&lab).args([lab.node(), command]).run_with(b"12345").await;
    assert_eq!(ran.out().split_whitespace().collect::<Vec<_>>(), ["5", "later", "last"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_reads_nothing_does_not_wait_for_the_input_to_end() {
    let lab = fast_lab().await;
    let mut running = Cli::in_lab(&lab).args([lab.node(), "echo done"]).spawn();
    let _open = running.child.stdin.take();
    assert_eq!(running.finish().await.out(), "done\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_n_nothing_is_read_from_standard_input() {
    let lab = fast_lab().await;
    let ran = Cli::in_lab(&lab).args(["-n", lab.node(), "cat; echo end"]).run_with(b"input\n").await;
    assert_eq!((ran.code, ran.out()), (Some(0), "end\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_standard_input_is_the_end_of_input() {
    let lab = fast_lab().await;
    let (command, _home) = Cli::in_lab(&lab).args([lab.node(), "cat; echo end"]).into_parts();
    let ssmssh = command.as_std();
    let mut shell = tokio::process::Command::new("/bin/sh");
    shell.arg("-c").arg("exec \"$@\" <&-").arg("sh").arg(ssmssh.get_program()).args(ssmssh.get_args());
    shell.env_clear().envs(ssmssh.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = shell.output().await.unwrap();
    assert_eq!(output.stdout, b"end\n", "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_reader_of_stdout_goes_away_it_ends_quietly() {
    let lab = fast_lab().await;
    let mut running = Cli::in_lab(&lab).args(["-q", lab.node(), "yes"]).spawn();
    let mut stdout = running.child.stdout.take().unwrap();
    let mut two = [0; 2];
    stdout.read_exact(&mut two).await.unwrap();
    drop(stdout);
    let ran = running.finish().await;
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(141), ""));
    all_sessions_over(&lab).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_ends_it_with_128_and_its_number_and_leaves_no_session() {
    let lab = fast_lab().await;
    for (signal, code) in [(Signal::HUP, 129), (Signal::INT, 130), (Signal::USR1, 138), (Signal::TERM, 143)] {
        let mut running = Cli::in_lab(&lab).args(["-q", lab.node(), "echo up; exec sleep 1000"]).spawn();
        let mut line = String::new();
        BufReader::new(running.child.stdout.as_mut().unwrap()).read_line(&mut line).await.unwrap();
        running.signal(signal);
        let ran = running.finish().await;
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(code), ""));
        all_sessions_over(&lab).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_reaches_a_command_that_has_no_terminal() {
    let lab = fast_lab().await;
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("interrupted");
    let command = format!("trap 'touch {}; exit' INT; echo up; while :; do sleep 0.01; done", mark.display());
    let mut running = Cli::in_lab(&lab).args([lab.node(), &command]).spawn();
    let mut line = String::new();
    BufReader::new(running.child.stdout.as_mut().unwrap()).read_line(&mut line).await.unwrap();
    running.signal(Signal::INT);
    assert_eq!(running.finish().await.code, Some(130));
    eventually("the command was interrupted", || mark.exists()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_while_connecting_leaves_no_session_either() {
    let lab = ssm_lab::Lab::builder().worker_start(std::time::Duration::from_hours(1)).start().await.unwrap();
    let running = Cli::in_lab(&lab).args(["-q", lab.node(), "true"]).spawn();
    eventually("a session is started", || lab.open_sessions() == 1).await;
    running.signal(Signal::TERM);
    assert_eq!(running.finish().await.code, Some(143));
    all_sessions_over(&lab).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_terminal_the_shell_reads_its_commands_from_standard_input() {
    let lab = fast_lab().await;
    let ran = Cli::in_lab(&lab).args(["-q", lab.node()]).run_with(b"test -t 0 || echo none\nexit 3\n").await;
    assert_eq!((ran.code, ran.out(), ran.stderr.as_str()), (Some(3), "none\n", ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn words_are_joined_by_spaces_and_their_bytes_kept() {
    let lab = fast_lab().await;
    let word = OsString::from_vec(b"'caf\xe9  '".to_vec());
    let args = [lab.node().into(), "printf".into(), "%s".into(), word];
    assert_eq!(Cli::in_lab(&lab).args(args).run().await.stdout, b"caf\xe9  ");
}

#[tokio::test(flavor = "multi_thread")]
async fn variables_reach_the_command() {
    let lab = fast_lab().await;
    let args = ["-o", "SetEnv=LC_A=\"1 2\"", "-o", "SendEnv LC_T*", lab.node(), "echo \"$LC_A,$LC_TIME,$LANG\""];
    let ran = Cli::in_lab(&lab).env("LC_TIME", "C").env("LANG", "C").args(args).run().await;
    assert_eq!(ran.out(), "1 2,C,C\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_is_asked_for_by_tt_only_when_there_is_none_here() {
    let lab = fast_lab().await;
    let command = "test -t 1 && echo terminal";
    let plain = Cli::in_lab(&lab).args(["-t", lab.node(), command]).run().await;
    assert_eq!((plain.code, plain.out()), (Some(1), ""));
    assert!(plain.stderr.contains("-tt"), "{}", plain.stderr);
    let forced = Cli::in_lab(&lab).args(["-q", "-tt", lab.node(), command]).run().await;
    assert_eq!((forced.code, forced.out()), (Some(0), "terminal\r\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn output_that_cannot_be_written_is_a_failure() {
    let lab = fast_lab().await;
    let line = format!("exec {} -q {} 'echo x; exit 3' >/dev/full", env!("CARGO_BIN_EXE_ssmssh"), lab.node());
    let ran = Cli::program("/bin/sh").with_lab(&lab).args(["-c", &line]).run().await;
    let expected = "ssmssh: cannot write standard output: No space left on device (os error 28)\n";
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(255), expected));
}

/// As with ssh, whoever closes a standard descriptor gets nothing by it, and no connection takes its number.
#[tokio::test(flavor = "multi_thread")]
async fn closed_descriptors_are_as_good_as_dev_null() {
    let lab = fast_lab().await;
    for closed in [">&-", "2>&-", "<&-", "<&- >&- 2>&-"] {
        let command = "cat; echo out; echo err >&2; exit 3";
        let line = format!("exec {} -q {} '{command}' {closed}", env!("CARGO_BIN_EXE_ssmssh"), lab.node());
        let ran = Cli::program("/bin/sh").with_lab(&lab).args(["-c", &line]).run().await;
        assert_eq!(ran.code, Some(3), "{closed}: {}", ran.stderr);
        assert_eq!(ran.out(), if closed.contains(" >&-") || closed == ">&-" { "" } else { "out\n" }, "{closed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn v_prints_what_is_used_and_the_stages_and_vv_no_secret() {
    let lab = fast_lab().await;
    let ran = Cli::in_lab(&lab).args(["-v", lab.node(), "true"]).run().await;
    let stages = [
        "credentials",
        "StartSession",
        "WebSocket",
        "handshake",
        "key exchange",
        "authentication",
        "channel",
        "ready after",
    ];
    for stage in stages {
        let prefix = format!("ssmssh: {stage} ");
        let found = ran.stderr.lines().find(|line| line.starts_with(&prefix));
        assert!(found.is_some_and(|line| line.ends_with(" ms")), "{stage}: {}", ran.stderr);
    }
    let details = [
        format!("node {}, port 22, user {}", lab.node(), lab.user()),
        format!("known hosts in {}", lab.known_hosts().display()),
        format!("region {}, API at 127.0.0.1", lab.region()),
        "SSM session lab-".to_owned(),
        "host key ssh-ed25519 SHA256:".to_owned(),
        format!("offering the key {}", lab.identity().display()),
        "data channel: closed by ".to_owned(),
    ];
    for detail in details {
        let prefix = format!("ssmssh: {detail}");
        assert!(ran.stderr.lines().any(|line| line.starts_with(&prefix)), "{detail}: {}", ran.stderr);
    }
    let ran = Cli::in_lab(&lab).args(["-vvv", lab.node(), "true"]).run().await;
    for secret in [lab.secret_access_key(), lab.session_token(), "X-Amz", "TokenValue", "data-channel"] {
        assert!(!ran.stderr.contains(secret), "{secret}: {}", ran.stderr);
    }
}
