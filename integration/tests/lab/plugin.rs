//! AWS's own session-manager-plugin as the client, where it is installed: OpenSSH, the plugin, the lab's node, a real sshd.

use std::{
    io::Write,
    path::PathBuf,
    process::{Output, Stdio},
};

use serde_json::json;
use ssm_lab::{Lab, LabBuilder};
use tokio::{process::Command, time::timeout};

use crate::client::{PATIENCE, start};

const PROGRAM: &str = "session-manager-plugin";
/// The plugin takes StartSession's answer from a variable whose name begins so.
const RESPONSE: &str = "AWS_SSM_START_SESSION_RESPONSE_LAB";

fn installed() -> bool {
    #[expect(clippy::disallowed_methods, reason = "whether a program is installed is a matter of the environment")]
    let path = std::env::var_os("PATH").unwrap_or_default();
    let installed = std::env::split_paths(&path).any(|directory: PathBuf| directory.join(PROGRAM).is_file());
    if !installed {
        let _ = writeln!(std::io::stderr(), "SKIPPED: {PROGRAM} is not installed; nothing was tried with it");
    }
    installed
}

async fn ssh(lab: &Lab, command: &str) -> Output {
    let grant = start(lab, 22).await;
    let input = json!({ "Target": lab.node() });
    let proxy = format!("{PROGRAM} {RESPONSE} {} StartSession '' '{input}' {}", lab.region(), lab.endpoint_url());
    let mut ssh = Command::new("ssh");
    ssh.args(["-F", "/dev/null", "-i"]).arg(lab.identity());
    for option in [
        "StrictHostKeyChecking=accept-new",
        &format!("UserKnownHostsFile={}", lab.known_hosts().display()),
        "IdentitiesOnly=yes",
        "BatchMode=yes",
        "LogLevel=ERROR",
        &format!("ProxyCommand={proxy}"),
    ] {
        ssh.args(["-o", option]);
    }
    ssh.arg(format!("{}@{}", lab.user(), lab.node())).arg(command);
    ssh.envs(lab.env()).env(RESPONSE, grant.to_string()).stdin(Stdio::null()).kill_on_drop(true);
    timeout(PATIENCE, ssh.output()).await.unwrap().unwrap()
}

async fn lab(configure: impl FnOnce(LabBuilder) -> LabBuilder) -> Lab {
    configure(Lab::builder().openssh().allow_unsigned_upgrades()).start().await.unwrap()
}

#[tokio::test]
async fn the_official_plugin_carries_ssh_through_the_lab() {
    if !installed() {
        return;
    }
    let lab = lab(|lab| lab).await;
    let output = ssh(&lab, "echo out; echo err >&2; exit 7").await;
    assert_eq!(output.status.code(), Some(7), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (b"out\n".as_slice(), b"err\n".as_slice()));
}

#[tokio::test]
async fn the_official_plugin_is_at_home_with_the_services_odd_messages() {
    if !installed() {
        return;
    }
    let lab = lab(LabBuilder::odd_messages).await;
    let output = ssh(&lab, "head -c 200000 /dev/zero | wc -c; head -c 200000 /dev/zero; exit 3").await;
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.stdout.len(), "200000\n".len() + 200_000);
}
