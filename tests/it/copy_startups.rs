//! Copies over several streams from a server that takes few logins at a time.

use std::fs;
use std::process::Output;

use ssm_lab::Lab;

use crate::copy_sftp::noise;
use crate::copy_stripes::ssmcp;
use crate::support::sshd::Sshd;

#[tokio::test]
async fn a_server_that_takes_few_logins_at_a_time_gets_more_streams_one_at_a_time() {
    // It refuses whoever comes while two are not logged in yet.
    let sshd = Sshd::with(&["ed25519"], "MaxStartups 2:100:2");
    let listening = sshd.listening();
    let lab = Lab::builder().sshd(listening.port).start().await.expect("a lab");
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let content = noise(24 << 20, 15);
    fs::write(there.path().join("file"), &content).unwrap();
    let mut copying = ssmcp(&lab, here.path(), &sshd.user_key_file());
    copying.args(["-o", "StrictHostKeyChecking=accept-new", "-q", "-j8", "-P", &listening.port.to_string()]);
    copying.arg(format!("{}:{}", lab.node(), there.path().join("file").display())).arg("copy");
    let Output { status, stderr, .. } = copying.output().await.expect("ssmcp runs");
    assert_eq!((status.code(), String::from_utf8_lossy(&stderr).as_ref()), (Some(0), ""));
    assert!(fs::read(here.path().join("copy")).unwrap() == content);
    let log = listening.log();
    let (accepted, refused) = (log.matches("Accepted publickey").count(), log.matches("past MaxStartups").count());
    assert!(refused >= 1 && accepted >= 4, "what was refused is tried again\n{log}");
    assert!(refused <= 2, "after the first refusal they come one at a time\n{log}");
}
