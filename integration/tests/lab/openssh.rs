//! The SSH servers behind the node, judged by OpenSSH's own client, straight over TCP.

use std::process::{Output, Stdio};

use ssm_lab::Lab;
use tokio::{io::AsyncWriteExt, process::Command};

fn options(lab: &Lab) -> Vec<String> {
    let known_hosts = format!("UserKnownHostsFile={}", lab.known_hosts().display());
    let mut options = vec!["-F".to_owned(), "/dev/null".to_owned()];
    for option in
        ["StrictHostKeyChecking=accept-new", "IdentitiesOnly=yes", "BatchMode=yes", "LogLevel=ERROR", &known_hosts]
    {
        options.extend(["-o".to_owned(), option.to_owned()]);
    }
    options.extend(["-i".to_owned(), lab.identity().display().to_string()]);
    options
}

fn ssh(lab: &Lab) -> Command {
    let mut command = Command::new("ssh");
    command.args(options(lab)).args(["-p", &lab.sshd_address().port().to_string()]);
    command.kill_on_drop(true).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

async fn run(lab: &Lab, command: &str) -> Output {
    ssh(lab).arg(format!("{}@127.0.0.1", lab.user())).arg(command).output().await.unwrap()
}

#[tokio::test]
async fn a_command_has_its_exit_status_and_its_streams_apart() {
    let lab = Lab::builder().start().await.unwrap();
    let output = run(&lab, "echo out; echo err >&2; exit 7").await;
    assert_eq!(output.status.code(), Some(7));
    assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (b"out\n".as_slice(), b"err\n".as_slice()));
}

#[tokio::test]
async fn a_command_starts_in_the_labs_home_with_a_clean_environment() {
    let lab = Lab::builder().start().await.unwrap();
    let output = run(&lab, "pwd; echo $HOME $USER; env | grep -c CARGO").await;
    let home = lab.home().display();
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{home}\n{home} lab\n0\n"));
}

#[tokio::test]
async fn a_signal_is_told_from_an_exit_status() {
    let lab = Lab::builder().start().await.unwrap();
    // OpenSSH's client turns an exit-signal into 255 and says which.
    let output = run(&lab, "kill -TERM $$").await;
    assert_eq!(output.status.code(), Some(255));
}

#[tokio::test]
async fn only_the_one_time_key_and_user_are_let_in() {
    let lab = Lab::builder().start().await.unwrap();
    let output = ssh(&lab).args(["root@127.0.0.1", "true"]).output().await.unwrap();
    assert_eq!(output.status.code(), Some(255));
    let other = Lab::builder().start().await.unwrap();
    let mut stranger = Command::new("ssh");
    stranger.args(options(&other)).args(["-p", &lab.sshd_address().port().to_string(), "lab@127.0.0.1", "true"]);
    let output = stranger.output().await.unwrap();
    assert_eq!(output.status.code(), Some(255));
    assert!(String::from_utf8_lossy(&output.stderr).contains("Permission denied (publickey)"));
}

#[tokio::test]
async fn megabytes_through_cat_come_back_whole() {
    let lab = Lab::builder().start().await.unwrap();
    let mut child = ssh(&lab).args(["lab@127.0.0.1", "cat"]).stdin(Stdio::piped()).spawn().unwrap();
    let data: Vec<u8> = (0..8_000_000u32).map(|n| (n % 253) as u8).collect();
    let mut stdin = child.stdin.take().unwrap();
    let sent = data.clone();
    let writing = tokio::spawn(async move { stdin.write_all(&sent).await });
    let output = child.wait_with_output().await.unwrap();
    writing.await.unwrap().unwrap();
    assert!(output.status.success());
    assert!(output.stdout == data, "{} bytes came back", output.stdout.len());
}

#[tokio::test]
async fn a_terminal_has_the_clients_name_and_its_exit_status() {
    let lab = Lab::builder().start().await.unwrap();
    let mut command = ssh(&lab);
    command.env("TERM", "vt220").args(["-tt", "lab@127.0.0.1", "tty && echo $TERM; exit 3"]);
    let output = command.output().await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.starts_with("/dev/") && text.ends_with("vt220\r\n"), "{text}");
    assert_eq!(output.status.code(), Some(3));
}

#[tokio::test]
async fn a_login_shell_reads_its_commands_from_the_terminal() {
    let lab = Lab::builder().start().await.unwrap();
    let mut child = ssh(&lab).args(["-tt", "lab@127.0.0.1"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"echo $((6*7)) $0\nexit 5\n").await.unwrap();
    let output = child.wait_with_output().await.unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("42 -sh"), "{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!(output.status.code(), Some(5));
}
