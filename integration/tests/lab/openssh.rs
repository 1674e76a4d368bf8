//! The SSH servers behind the node, judged by OpenSSH's own client, straight over TCP.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::Path,
    process::{Output, Stdio},
    time::{Duration, SystemTime},
};

use ssm_lab::{Lab, LabError};
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

fn sftp(lab: &Lab, batch: &Path) -> Command {
    let mut command = Command::new("sftp");
    command.args(options(lab)).args(["-P", &lab.sshd_address().port().to_string(), "-b"]).arg(batch);
    command.arg(format!("{}@127.0.0.1", lab.user())).kill_on_drop(true);
    command
}

#[tokio::test]
async fn sftp_puts_gets_lists_renames_and_removes() {
    let lab = Lab::builder().start().await.unwrap();
    let local = tempfile::tempdir().unwrap();
    let data: Vec<u8> = (0..3_000_000u32).map(|n| (n % 241) as u8).collect();
    std::fs::write(local.path().join("data"), &data).unwrap();
    let batch = local.path().join("batch");
    let text = "lcd LOCAL\nput data\nchmod 640 data\nln -s data link\nmkdir d\nrename data d/moved\nln d/moved hard\n\
                get d/moved back\nls -l d\nrm d/moved\nrmdir d\npwd\n";
    std::fs::write(&batch, text.replace("LOCAL", local.path().to_str().unwrap())).unwrap();
    let output = sftp(&lab, &batch).output().await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("-rw-r-----") && text.contains(lab.home().to_str().unwrap()), "{text}");
    assert!(std::fs::read(local.path().join("back")).unwrap() == data);
    assert_eq!(std::fs::read_link(lab.home().join("link")).unwrap(), Path::new("data"));
    assert!(std::fs::read(lab.home().join("hard")).unwrap() == data);
    assert!(!lab.home().join("d").exists());
}

#[tokio::test]
async fn scp_keeps_names_that_are_not_utf8_and_times() {
    let lab = Lab::builder().start().await.unwrap();
    let local = tempfile::tempdir().unwrap();
    let name = OsStr::from_bytes(b"odd \xff\n name");
    let source = local.path().join(name);
    std::fs::write(&source, "content").unwrap();
    let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    std::fs::File::options().write(true).open(&source).unwrap().set_modified(modified).unwrap();
    let mut command = Command::new("scp");
    command.args(options(&lab)).args(["-p", "-r", "-P", &lab.sshd_address().port().to_string()]);
    command.arg(local.path()).arg(format!("{}@127.0.0.1:copy", lab.user()));
    let output = command.output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let copy = lab.home().join("copy").join(name);
    assert_eq!(std::fs::read_to_string(&copy).unwrap(), "content");
    assert_eq!(copy.metadata().unwrap().modified().unwrap(), modified);
}

#[tokio::test]
async fn a_real_sshd_runs_commands_and_sftp_for_the_current_user() {
    let lab = Lab::builder().openssh().start().await.unwrap();
    let output = run(&lab, "id -un; exit 7").await;
    assert_eq!(output.status.code(), Some(7), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), lab.user());
    let batch = lab.home().join("batch");
    let target = lab.home().join("put");
    std::fs::write(&batch, format!("put {} {}\n", batch.display(), target.display())).unwrap();
    assert!(sftp(&lab, &batch).output().await.unwrap().status.success());
    assert_eq!(std::fs::read(&target).unwrap(), std::fs::read(&batch).unwrap());
}

#[tokio::test]
async fn a_real_sshds_configuration_can_be_added_to_and_is_checked() {
    let lab = Lab::builder().openssh_option("ForceCommand echo forced").start().await.unwrap();
    assert_eq!(run(&lab, "true").await.stdout, b"forced\n");
    let error = Lab::builder().openssh_option("Nonsense yes").start().await.unwrap_err();
    let LabError::OpenSsh(error) = error else { panic!("{error}") };
    assert!(error.to_string().contains("Nonsense"), "{error}");
}
