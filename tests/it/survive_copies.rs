//! Copies whose connection is cut, and copies over a bad network: what arrives is what was sent.

use std::fs;
use std::time::Duration;

use ssm_lab::{Cut, Event, Lab, LabBuilder};

use crate::support::cli::{Cli, Ran, all_sessions_over, noise};

/// A real sshd, and ssmcp with one stream: what this is about are cuts, not stripes.
async fn world(customize: impl FnOnce(LabBuilder) -> LabBuilder) -> Lab {
    customize(Lab::builder().openssh()).start().await.expect("a lab with OpenSSH's sshd")
}

fn ssmcp(lab: &Lab, from: &str, to: &str) -> Cli {
    let cli = Cli::program(env!("CARGO_BIN_EXE_ssmcp")).with_lab(lab);
    cli.args(["-o", "LogLevel=QUIET", "-j", "1", from, to])
}

fn succeeded(what: &str, ran: &Ran) {
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{what}");
}

fn resumed(lab: &Lab) -> usize {
    lab.events().iter().filter(|event| matches!(event, Event::SessionResumed { .. })).count()
}

/// `up` bytes to the node and `down` bytes from it, by a command and by a copy.
async fn there_and_back(lab: &Lab, up: usize, down: usize) {
    let folder = tempfile::tempdir().expect("on disk");
    let path = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let remote = |name: &str| format!("{}:{}", lab.node(), path(name));
    let (sent, stored) = (noise(up), noise(down));
    fs::write(path("source"), &sent).expect("on disk");
    fs::write(path("stored"), &stored).expect("on disk");

    let command = format!("cat > {}", path("by-command"));
    let ran = Cli::in_lab(lab).args(["-q", lab.node(), &command]).run_with(&sent).await;
    succeeded("up by a command", &ran);
    assert!(fs::read(path("by-command")).expect("on disk") == sent, "what a command stored is not what was sent");

    succeeded("up by a copy", &ssmcp(lab, &path("source"), &remote("by-copy")).run().await);
    assert!(fs::read(path("by-copy")).expect("on disk") == sent, "the copy on the node is not the source");

    let ran = Cli::in_lab(lab).args(["-q", lab.node(), &format!("cat {}", path("stored"))]).run().await;
    succeeded("down by a command", &ran);
    assert!(ran.stdout == stored, "what a command printed is not what was stored");

    succeeded("down by a copy", &ssmcp(lab, &remote("stored"), &path("copied")).run().await);
    assert!(fs::read(path("copied")).expect("on disk") == stored, "the copy from the node is not the source");
    all_sessions_over(lab).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_are_whole_however_often_the_connection_is_cut() {
    let lab = world(|lab| {
        lab.cut_every(Cut::Bye, Duration::from_millis(400))
            .cuts([Cut::Bye, Cut::Reset, Cut::Silence])
            .silence(Duration::from_millis(600))
    })
    .await;
    there_and_back(&lab, 16 << 20, 1 << 20).await;
    assert!(resumed(&lab) >= 4, "{} resumptions", resumed(&lab));
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_are_whole_over_a_network_that_loses_doubles_and_reorders() {
    let lab = world(|lab| lab.delay(Duration::from_millis(30)).loss(0.02).duplicate(0.02).reorder(0.05)).await;
    there_and_back(&lab, 4 << 20, 512 << 10).await;
}
