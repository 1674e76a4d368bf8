//! `ssmssh` to a real OpenSSH server: where the embedded one might agree with our own mistakes.

use ssm_lab::{Lab, Pace};

use crate::support::cli::{Cli, all_sessions_over, noise};
use crate::support::pty::Terminal;

async fn openssh_lab() -> Lab {
    Lab::builder().openssh().pace(Pace::Ideal).start().await.expect("a lab with OpenSSH's sshd")
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_statuses_and_signals_arrive() {
    let lab = openssh_lab().await;
    for (command, code) in [("true", 0), ("exit 7", 7), ("kill -TERM $$", 143), ("kill -SEGV $$", 139)] {
        let ran = Cli::in_lab(&lab).args([lab.node(), command]).run().await;
        assert_eq!(ran.code, Some(code), "{command}: {}", ran.stderr);
    }
    all_sessions_over(&lab).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_without_a_number_here_is_named() {
    let lab = openssh_lab().await;
    let ran = Cli::in_lab(&lab).args([lab.node(), "kill -34 $$"]).run().await;
    assert_eq!(ran.code, Some(255), "{}", ran.stderr);
    assert!(ran.stderr.contains("a signal that has no number here"), "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn binary_data_passes_both_ways_intact() {
    let lab = openssh_lab().await;
    let data = noise(8 << 20);
    let ran = Cli::in_lab(&lab).args([lab.node(), "cat"]).run_with(&data).await;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stdout == data, "{} bytes came back of {}", ran.stdout.len(), data.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shell_on_a_terminal_can_be_used() {
    let lab = openssh_lab().await;
    let mut terminal = Terminal::start(Cli::in_lab(&lab).args([lab.node()]));
    terminal.log_in().await;
    terminal.type_keys("stty size; echo type=$TERM; stty -a | tr ';' '\\n' | grep 'erase ='\r").await;
    terminal.see("30 100").await;
    terminal.see("type=xterm-256color").await;
    terminal.see("erase = ^?").await;
    terminal.resize(77, 22);
    terminal.type_keys("sh -c 'echo up-$((1 + 1)); exec sleep 1000'\r").await;
    terminal.see("up-2").await;
    terminal.type_keys("\u{3}").await;
    terminal.type_keys("echo \"status=$? $(stty size)\"\r").await;
    terminal.see("status=130 22 77").await;
    terminal.type_keys("exit 9\r").await;
    assert_eq!(terminal.wait().await, 9);
    assert!(terminal.is_as_found());
    all_sessions_over(&lab).await;
}
