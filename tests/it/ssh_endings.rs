//! What becomes of a command whose `Child` is dropped and whose session is closed: with a real OpenSSH server, and with the
//! lab's, which does the same.

use std::{path::Path, time::Duration};

use ssm_lab::Lab;
use ssmssh::ssh::sftp::{ProtocolError, Sftp, SftpError};
use ssmssh::ssh::{HostKeyCheck, KeyFile, Pty, Session, SessionBuilder, StrictHostKeyChecking};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpStream,
};

use crate::support::{
    ssh::{session, within},
    sshd::Sshd,
};

async fn lab_session(lab: &Lab) -> Session {
    let key = KeyFile::open(lab.identity()).expect("a key file").decode(None).expect("a key");
    let host_keys = HostKeyCheck::new(StrictHostKeyChecking::Off, "unused".into(), "node", 22);
    let stream = TcpStream::connect(lab.sshd_address()).await.expect("it listens");
    let builder = SessionBuilder::new(lab.user()).identity(key).host_keys(host_keys);
    within(builder.connect(stream)).await.expect("let in")
}

/// Runs `work` on a session with either server.
async fn with_either<W: Future<Output = ()>>(work: impl Fn(Session) -> W) {
    let sshd = Sshd::start();
    work(session(&sshd).await).await;
    let lab = Lab::builder().start().await.expect("a lab");
    work(lab_session(&lab).await).await;
}

async fn appears(path: &Path) {
    within(async {
        while !path.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

async fn is_over(pid: &str) {
    let stat = format!("/proc/{pid}/stat");
    within(async {
        while std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

async fn first_line(child: &mut ssmssh::ssh::Child) -> String {
    let mut line = String::new();
    let mut stdout = BufReader::new(child.stdout.take().expect("stdout"));
    within(stdout.read_line(&mut line)).await.expect("a line");
    line.trim_end().to_owned()
}

#[tokio::test]
async fn a_command_without_a_terminal_finds_its_input_at_the_end_and_runs_on() {
    with_either(async |session: Session| {
        let dir = tempfile::tempdir().expect("a directory");
        let (eof, done) = (dir.path().join("eof"), dir.path().join("done"));
        let script = format!("echo ready; cat; touch {}; sleep 0.3; touch {}", eof.display(), done.display());
        let mut child = within(session.command(script).spawn()).await.expect("spawned");
        assert_eq!(first_line(&mut child).await, "ready");
        drop(child);
        within(session.close()).await.expect("an orderly end");
        appears(&eof).await;
        appears(&done).await;
    })
    .await;
}

#[tokio::test]
async fn a_command_on_a_terminal_is_hung_up() {
    with_either(async |session: Session| {
        let dir = tempfile::tempdir().expect("a directory");
        let hung_up = dir.path().join("hung up");
        let script =
            format!("trap 'touch \"{}\"; exit' HUP; echo ready; while :; do sleep 0.02; done", hung_up.display());
        let mut child = within(session.command(script).pty(Pty::default()).spawn()).await.expect("spawned");
        assert_eq!(first_line(&mut child).await, "ready");
        drop(child);
        within(session.close()).await.expect("an orderly end");
        appears(&hung_up).await;
    })
    .await;
}

/// OpenSSH kills for users only, and whoever runs the tests may be root: the lab's server stands for it.
#[tokio::test]
async fn a_command_that_is_to_be_killed_does_not_outlive_its_child_or_its_session() {
    let lab = Lab::builder().start().await.expect("a lab");
    for drops_first in [true, false] {
        let session = lab_session(&lab).await;
        let command = session.command("trap '' HUP TERM PIPE; echo $$; sleep 3600; true").kill_on_drop(true);
        let mut child = within(command.spawn()).await.expect("spawned");
        let pid = first_line(&mut child).await;
        if drops_first {
            drop(child);
            within(session.close()).await.expect("an orderly end");
        } else {
            within(session.close()).await.expect("an orderly end");
            drop(child);
        }
        is_over(&pid).await;
    }
}

#[tokio::test]
async fn what_a_forced_command_or_a_login_shell_prints_in_place_of_sftp_is_quoted_whole() {
    let sshd = Sshd::with(&["ed25519"], "ForceCommand echo This account is currently not available.; exit 1");
    let stream = within(session(&sshd).await.subsystem("sftp")).await.expect("a channel");
    let error = within(Sftp::new(stream)).await.expect_err("no SFTP");
    let SftpError::Protocol(ProtocolError::TextOnStream(line)) = &error else { panic!("{error}") };
    assert_eq!(line, "This account is currently not available.");
    let causes = std::error::Error::source(&error).expect("the protocol's").to_string();
    for cause in ["start-up file", "login shell", "forced command"] {
        assert!(causes.contains(cause), "{causes}");
    }
    assert!(!error.is_missing(), "there is a server, and something else speaks");
}

#[tokio::test]
async fn a_login_shell_that_only_ends_is_told_from_a_server_without_sftp() {
    let sshd = Sshd::with(&["ed25519"], "ForceCommand exec false");
    let stream = within(session(&sshd).await.subsystem("sftp")).await.expect("a channel");
    let error = within(Sftp::new(stream)).await.expect_err("no SFTP");
    assert!(matches!(error, SftpError::NotStarted), "{error}");
}

#[tokio::test]
async fn a_signal_is_for_the_whole_group_of_a_command() {
    let lab = Lab::builder().start().await.expect("a lab");
    let session = lab_session(&lab).await;
    let mut child = within(session.command("sleep 3600 & echo $!; wait").spawn()).await.expect("spawned");
    let pid = first_line(&mut child).await;
    within(child.signal("TERM")).await.expect("a name");
    is_over(&pid).await;
    assert_eq!(within(child.wait()).await.expect("a status").signal(), Some("TERM"));
}
