//! The `ssm-lab` command.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::ExitStatusExt},
    path::PathBuf,
    process::{ExitStatus, Output, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

use crate::client::PATIENCE;

fn lab(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ssm-lab"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

async fn run(arguments: &[&str]) -> Output {
    timeout(PATIENCE, lab(arguments).output()).await.unwrap().unwrap()
}

fn signal(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id().unwrap()).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

#[tokio::test]
async fn the_commands_exit_status_is_the_labs() {
    let output = run(&["--", "sh", "-c", "echo out; echo err >&2; exit 7"]).await;
    assert_eq!(output.status.code(), Some(7));
    assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (b"out\n".as_slice(), b"err\n".as_slice()));
    let ended = |status: ExitStatus| (status.code(), status.signal());
    assert_eq!(ended(run(&["--", "sh", "-c", "kill -TERM $$"]).await.status), (None, Some(15)));
    // A fault in the command is none in the lab.
    assert_eq!(ended(run(&["--", "sh", "-c", "kill -SEGV $$"]).await.status), (Some(128 + 11), None));
}

#[tokio::test]
async fn an_option_that_cannot_be_is_a_failure_of_the_labs_own() {
    for arguments in [&["--deny", "nonsense"][..], &["--frobnicate"], &["--loss", "2"]] {
        let output = run(&[arguments, &["--", "true"]].concat()).await;
        assert_eq!(output.status.code(), Some(125), "{arguments:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.starts_with("ssm-lab: ") && said.contains(arguments[0]), "{said}");
    }
    assert_eq!(run(&["--help"]).await.status.code(), Some(0));
}

#[tokio::test]
async fn a_command_that_is_not_there_is_127_and_one_that_cannot_be_run_126() {
    let output = run(&["--", "/nonexistent/command"]).await;
    assert_eq!(output.status.code(), Some(127));
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("ssm-lab: /nonexistent/command: "));
    assert_eq!(run(&["--", "nocmd-anywhere"]).await.status.code(), Some(127));
    let folder = tempfile::tempdir().unwrap();
    let no_program = folder.path().join("text");
    fs::write(&no_program, "no program").unwrap();
    assert_eq!(run(&["--", no_program.to_str().unwrap()]).await.status.code(), Some(126));
}

#[tokio::test]
async fn the_command_sees_the_lab_and_nothing_of_the_users_aws_configuration() {
    let mut command = lab(&["--", "sh", "-c", "echo $AWS_PROFILE; echo $AWS_ENDPOINT_URL_SSM; echo ${PATH%%:*}"]);
    let output = command.env("AWS_PROFILE", "production").output().await.unwrap();
    let own = PathBuf::from(env!("CARGO_BIN_EXE_ssm-lab")).parent().unwrap().display().to_string();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].is_empty() && lines[1].starts_with("http://127.0.0.1:"), "{text}");
    assert_eq!(lines[2], own);
}

#[tokio::test]
async fn the_one_time_key_is_for_its_owners_eyes_and_goes_with_the_lab() {
    let output = run(&["--", "sh", "-c", "stat -c %a $SSMSSH_IDENTITY; echo $SSMSSH_IDENTITY"]).await;
    let text = String::from_utf8(output.stdout).unwrap();
    let (mode, path) = text.trim().split_once('\n').unwrap();
    assert_eq!(mode, "400");
    assert!(!fs::exists(path).unwrap());
}

#[tokio::test]
async fn termination_is_passed_on_and_the_lab_outlives_its_command() {
    let script = "trap 'echo told; exit 4' TERM; echo ready; while :; do sleep 0.05; done";
    let mut child = lab(&["--", "sh", "-c", script]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("ready"));
    signal(&child, Signal::TERM);
    assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("told"));
    assert_eq!(timeout(PATIENCE, child.wait()).await.unwrap().unwrap().code(), Some(4));
}

#[tokio::test]
async fn alone_it_prints_exports_serves_until_a_signal_and_cleans_up() {
    let mut child = lab(&["--node", "mi-00000000000000001"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut exports = Vec::new();
    while !exports.last().is_some_and(|line: &String| line.starts_with("export SSMSSH_IDENTITY=")) {
        exports.push(timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap().unwrap());
    }
    assert!(exports[1].starts_with("unset AWS_PROFILE "));
    assert!(exports.contains(&"export SSM_LAB_NODE='mi-00000000000000001'".to_owned()), "{exports:?}");
    let identity = exports.last().unwrap().split('\'').nth(1).unwrap().to_owned();
    assert!(fs::exists(&identity).unwrap());
    signal(&child, Signal::INT);
    let status = timeout(PATIENCE, child.wait()).await.unwrap().unwrap();
    assert_eq!((status.code(), status.signal()), (None, Some(2)));
    assert!(!fs::exists(&identity).unwrap());
}

/// What a shell makes of exports.
fn value(exports: &str, name: &str) -> String {
    let line = exports.lines().find_map(|line| line.strip_prefix(&format!("export {name}='")));
    line.and_then(|line| line.strip_suffix('\'')).unwrap_or_else(|| panic!("{name} in {exports}")).to_owned()
}

async fn gone(path: &str) {
    let wait = async {
        while fs::exists(path).unwrap() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, wait).await.unwrap();
}

#[tokio::test]
async fn in_the_background_it_is_ready_when_eval_has_its_exports_and_ends_by_its_pid() {
    let output = run(&["--background"]).await;
    let exports = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{exports}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said, "ssm-lab: serving in the background; `kill $SSM_LAB_PID` ends it\n");
    let address = value(&exports, "AWS_ENDPOINT_URL_SSM");
    tokio::net::TcpStream::connect(address.strip_prefix("http://").unwrap()).await.unwrap();
    let identity = value(&exports, "SSMSSH_IDENTITY");
    assert!(fs::exists(&identity).unwrap());
    kill_process(Pid::from_raw(value(&exports, "SSM_LAB_PID").parse().unwrap()).unwrap(), Signal::TERM).unwrap();
    gone(&identity).await;
}

#[tokio::test]
async fn in_the_background_its_failures_are_told_all_the_same() {
    let output = run(&["--background", "--openssh", "--no-sshd"]).await;
    assert_eq!((output.status.code(), output.stdout.len()), (Some(125), 0));
    let output = run(&["--background", "--agent-listen", "1", "--tls-cert", "/nowhere", "--tls-key", "/nowhere"]).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(125), 0), "{said}");
    assert!(said.starts_with("ssm-lab: the agent's listener"), "{said}");
}

#[tokio::test]
async fn a_file_with_the_exports_is_the_owners_and_goes_with_the_lab() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lab.env");
    let path = file.to_str().unwrap();
    for _ in 0..2 {
        let mut child = lab(&["--env-file", path]).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let said = timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap().unwrap();
        assert_eq!(said, format!("ssm-lab: serving; `. {path}` in another shell leads there, Ctrl-C ends it"));
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(value(&fs::read_to_string(&file).unwrap(), "SSM_LAB_NODE").starts_with("i-"));
        // What a lab that was killed has left is replaced by the next.
        let left = fs::read_to_string(&file).unwrap();
        signal(&child, Signal::TERM);
        assert_eq!(timeout(PATIENCE, child.wait()).await.unwrap().unwrap().signal(), Some(15));
        assert!(!fs::exists(&file).unwrap());
        fs::write(&file, left).unwrap();
    }
    fs::write(&file, "mine").unwrap();
    let output = run(&["--env-file", path]).await;
    assert_eq!((output.status.code(), fs::read_to_string(&file).unwrap().as_str()), (Some(125), "mine"));
}

#[tokio::test]
async fn what_a_killed_lab_leaves_is_gone_once_another_starts() {
    let temporary = tempfile::tempdir().unwrap();
    let files = || fs::read_dir(temporary.path()).unwrap().count();
    let mut child = lab(&[]).env("TMPDIR", temporary.path()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap();
    child.kill().await.unwrap();
    assert_eq!(files(), 1);
    let output = lab(&["--", "true"]).env("TMPDIR", temporary.path()).output().await.unwrap();
    assert_eq!((output.status.code(), files()), (Some(0), 0));
}
