//! What a person is told who waits, and how the wait is ended.

use std::path::Path;

use tokio::net::{TcpListener, UnixListener};

use crate::support::cli::{Cli, fast_lab};
use crate::support::pty::Terminal;

/// Waits until the line is there, ends the wait, and looks at what is left.
async fn is_told_and_ended(cli: Cli, what: &str) {
    let mut terminal = Terminal::start(cli);
    terminal.see(&format!("waiting for {what}…")).await;
    terminal.type_keys("\x03").await;
    assert_eq!(terminal.wait().await, 130, "{}", terminal.contents());
    terminal.see(&format!("ssmssh: stopped while waiting for {what}")).await;
    let contents = terminal.contents();
    let left: Vec<_> = contents.lines().map(str::trim).filter(|line| !line.is_empty() && *line != "^C").collect();
    assert_eq!(left.len(), 1, "one line, and the other is taken away: {contents}");
}

fn hanging(home: &Path) -> String {
    let config = home.join("config");
    std::fs::write(&config, "[default]\ncredential_process = exec sleep 1000\n").expect("written");
    config.display().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_for_credentials_is_told_so_and_ctrl_c_ends_it_with_one_line() {
    let lab = fast_lab().await;
    let cli = Cli::in_lab(&lab).args([lab.node(), "true"]);
    let config = hanging(cli.home());
    let cli = cli.env_remove("AWS_ACCESS_KEY_ID").env("AWS_CONFIG_FILE", config);
    is_told_and_ended(cli, "the AWS credentials").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_for_an_api_that_stays_silent_is_told_so_and_ctrl_c_ends_it_with_one_line() {
    let lab = fast_lab().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let cli = Cli::in_lab(&lab).args(["--endpoint-url", &url, lab.node(), "true"]);
    is_told_and_ended(cli, "the SSM API (StartSession)").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_for_an_agent_that_stays_silent_is_told_so_and_ctrl_c_ends_it_with_one_line() {
    let lab = fast_lab().await;
    let folder = tempfile::tempdir().expect("a directory");
    let socket = folder.path().join("agent");
    let _listener = UnixListener::bind(&socket).expect("bound");
    let cli = Cli::in_lab(&lab).env("SSH_AUTH_SOCK", &socket).args([lab.node(), "true"]);
    is_told_and_ended(cli, "the SSH agent").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_told_of_a_wait_off_a_terminal() {
    let lab = fast_lab().await;
    let ran = Cli::in_lab(&lab).args([lab.node(), "sleep 2"]).run().await;
    assert_eq!((ran.code, ran.stderr.contains("waiting for")), (Some(0), false), "{}", ran.stderr);
}
