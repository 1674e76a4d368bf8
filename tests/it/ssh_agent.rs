//! Logins with keys that only a real `ssh-agent` holds.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, net::UnixListener},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use ssmssh::ssh::{AuthenticationError, SshAgent, SshError};

use crate::cli_failures::encrypted_key;
use crate::copy_cli::{World, until};
use crate::copy_sftp::noise;
use crate::copy_streams::sessions;
use crate::support::{
    cli::{Cli, fast_lab},
    ssh::connect,
    sshd::Sshd,
};

/// A running agent. Dropping it ends it.
struct Agent {
    folder: tempfile::TempDir,
    process: Child,
}

impl Agent {
    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = Command::new("ssh-agent");
        command.arg("-D").arg("-a").arg(folder.path().join("socket")).env("SSH_ASKPASS", "/bin/false");
        let process = command.stdout(Stdio::null()).spawn().expect("ssh-agent runs: install openssh-client");
        let agent = Self { folder, process };
        until("the agent listens", || agent.socket().exists()).await;
        agent
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    fn add(&self, options: &[&str], key: &Path) {
        let mut command = Command::new("ssh-add");
        command.arg("-q").args(options).arg(key).env("SSH_AUTH_SOCK", self.socket());
        let askpass = self.folder.path().join("askpass");
        fs::write(&askpass, "#!/bin/sh\necho correct horse\n").expect("written");
        fs::set_permissions(&askpass, PermissionsExt::from_mode(0o700)).expect("mode set");
        command.env("SSH_ASKPASS", askpass).env("SSH_ASKPASS_REQUIRE", "force").env("DISPLAY", ":0");
        assert!(command.stdin(Stdio::null()).status().expect("ssh-add runs").success());
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A new key that nobody lets in, of this type, as a file.
fn fresh_key(folder: &Path, key_type: &str) -> PathBuf {
    let path = folder.join(format!("new_{key_type}"));
    let made = Command::new("ssh-keygen").args(["-q", "-N", "", "-t", key_type, "-f"]).arg(&path).status();
    assert!(made.expect("ssh-keygen runs").success());
    fs::set_permissions(&path, PermissionsExt::from_mode(0o400)).expect("mode set");
    path
}

#[tokio::test]
async fn keys_of_every_type_log_in_from_an_agent() {
    let (sshd, folder) = (Sshd::start(), tempfile::tempdir().unwrap());
    for key_type in ["ed25519", "ecdsa", "rsa"] {
        let agent = Agent::start().await;
        let file = fresh_key(folder.path(), key_type);
        agent.add(&[], &file);
        sshd.authorize(fs::read_to_string(file.with_extension("pub")).unwrap().trim());
        let keys = SshAgent::new(agent.socket()).keys().await.expect("a list");
        assert_eq!(keys.len(), 1);
        connect(&sshd, sshd.stranger().identity(keys[0].clone())).await.expect(key_type);
    }
}

#[tokio::test]
async fn an_agent_that_refuses_to_sign_leaves_the_turn_to_the_next_key() {
    let (sshd, agent, folder) = (Sshd::start(), Agent::start().await, tempfile::tempdir().unwrap());
    let file = fresh_key(folder.path(), "ed25519");
    sshd.authorize(fs::read_to_string(file.with_extension("pub")).unwrap().trim());
    // Nobody can confirm.
    agent.add(&["-c"], &file);
    let key = SshAgent::new(agent.socket()).keys().await.expect("a list").remove(0);
    let error = connect(&sshd, sshd.stranger().identity(key.clone())).await.expect_err("no signature");
    assert!(matches!(&error, SshError::Authentication(AuthenticationError::Refused { .. })), "{error}");
    assert!(error.to_string().contains("refuses to sign"), "{error}");
    connect(&sshd, sshd.stranger().identity(key).identity(sshd.user_key())).await.expect("let in");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_key_that_the_agent_holds_needs_no_passphrase() {
    let (lab, agent, folder) = (fast_lab().await, Agent::start().await, tempfile::tempdir().unwrap());
    let key = encrypted_key(&lab, folder.path());
    agent.add(&[], &key);
    let named = ["-i", key.to_str().unwrap(), "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", lab.node(), "echo in"];
    let ran = Cli::in_lab(&lab).env("SSH_AUTH_SOCK", agent.socket()).args(named).run().await;
    assert_eq!(ran.out(), "in\n", "{}", ran.stderr);
    let unnamed = Cli::in_lab(&lab).env("SSH_AUTH_SOCK", agent.socket()).env_remove("SSMSSH_IDENTITY");
    let ran = unnamed.args([lab.node(), "echo in"]).run().await;
    assert_eq!(ran.out(), "in\n", "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_else_the_agent_holds_is_offered_behind_a_named_file_unless_identities_only_forbids() {
    let (lab, agent, folder) = (fast_lab().await, Agent::start().await, tempfile::tempdir().unwrap());
    agent.add(&[], lab.identity());
    let stranger = fresh_key(folder.path(), "ed25519");
    let only = |answer: &str| {
        let option = format!("IdentitiesOnly={answer}");
        let args = ["-v", "-i", stranger.to_str().unwrap(), "-o", &option, lab.node(), "echo in"];
        Cli::in_lab(&lab).env("SSH_AUTH_SOCK", agent.socket()).args(args).run()
    };
    let ran = only("no").await;
    assert_eq!(ran.out(), "in\n", "{}", ran.stderr);
    let offered: Vec<_> = ran.stderr.lines().filter(|line| line.contains("offering the key")).collect();
    assert!(offered.len() == 2 && offered[1].contains("of the agent"), "{offered:?}");
    let ran = only("yes").await;
    assert_eq!(ran.code, Some(255));
    assert!(!ran.stderr.contains("of the agent"), "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_gone_or_hangs_does_not_keep_a_key_file_from_logging_in() {
    let (lab, folder) = (fast_lab().await, tempfile::tempdir().unwrap());
    let hung = folder.path().join("hung");
    let _listener = UnixListener::bind(&hung).expect("bound");
    for socket in [folder.path().join("gone"), hung] {
        let ran = Cli::in_lab(&lab).env("SSH_AUTH_SOCK", socket).args([lab.node(), "echo in"]).run();
        let ran = tokio::time::timeout(Duration::from_mins(1), ran).await.expect("it does not hang");
        assert_eq!((ran.code, ran.out()), (Some(0), "in\n"), "{}", ran.stderr);
    }
}

#[tokio::test]
async fn every_stream_of_a_copy_logs_in_with_the_agent() {
    let (world, agent) = (World::new().await, Agent::start().await);
    agent.add(&[], world.lab.identity());
    let content = noise(3 << 20, 15);
    fs::write(world.there("file"), &content).unwrap();
    let source = world.node("file");
    let mut copying = world.command(&["-j3".as_ref(), &source, "copy".as_ref()]);
    copying.env_remove("SSMSSH_IDENTITY").env("SSH_AUTH_SOCK", agent.socket());
    let Output { status, stderr, .. } = copying.output().await.expect("ssmcp runs");
    assert_eq!((status.code(), String::from_utf8_lossy(&stderr).as_ref()), (Some(0), ""));
    assert!(fs::read(world.here("copy")).unwrap() == content);
    assert_eq!(sessions(&world), 3);
}
