//! Everything that node and service do wrong, as the user of `ssmssh` meets it.

use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::time::Duration;

use ssm_lab::{Event, Faults, Lab, LabBuilder, Oversize, Pace};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::cli::{Cli, LIMIT, Ran, all_sessions_over, eventually, noise};
use crate::support::pty::Terminal;

async fn lab(customize: impl FnOnce(LabBuilder) -> LabBuilder) -> Lab {
    customize(Lab::builder().pace(Pace::Ideal)).start().await.expect("a lab")
}

async fn run(lab: &Lab, args: &[&str]) -> Ran {
    Cli::in_lab(lab).args(["-o", "StrictHostKeyChecking=off"]).args(args).run().await
}

/// 300 KiB through `cat`.
async fn echoes(lab: &Lab, args: &[&str]) {
    let data = noise(300 << 10);
    let cli = Cli::in_lab(lab).args(["-q", "-o", "StrictHostKeyChecking=off"]).args(args).args([lab.node(), "cat"]);
    let ran = cli.run_with(&data).await;
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    assert!(ran.stdout == data, "{} bytes came back of {}", ran.stdout.len(), data.len());
}

fn recorded(lab: &Lab, wanted: impl Fn(&Event) -> bool) -> bool {
    lab.events().iter().any(wanted)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_an_ssh_server_is_told_long_before_the_service_notices() {
    let lab = lab(LabBuilder::no_sshd).await;
    let key = lab.identity().to_str().unwrap();
    let ran = run(&lab, &["-i", key, lab.node(), "true"]).await;
    assert_eq!((ran.code, ran.out()), (Some(255), ""));
    let says = format!("ssmssh: nothing is listening on port 22 of {}", lab.node());
    assert!(ran.stderr.starts_with(&says), "{}", ran.stderr);
    assert!(ran.stderr.contains("hint: is sshd running"), "{}", ran.stderr);
    let told_by_service = |event: &Event| matches!(event, Event::SessionEnded { output, .. } if !output.is_empty());
    assert!(!recorded(&lab, told_by_service), "the service knows only after a minute");
}

#[tokio::test(flavor = "multi_thread")]
async fn large_payloads_that_close_the_connection_are_told_with_the_option() {
    let lab = lab(|lab| lab.payload_limit(1024, Oversize::Close)).await;
    let data = noise(100 << 10);
    let upload = |args: &[&str]| Cli::in_lab(&lab).args(["-o", "StrictHostKeyChecking=off"]).args(args);
    let ran = upload(&[lab.node(), "cat >/dev/null"]).run_with(&data).await;
    assert_eq!(ran.code, Some(255));
    assert!(ran.stderr.contains("--max-payload 1024"), "{}", ran.stderr);
    assert!(recorded(&lab, |event| matches!(event, Event::PayloadRefused { .. })));
    echoes(&lab, &["--max-payload", "1024"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_payloads_that_are_dropped_are_told_with_the_option() {
    let lab = lab(|lab| lab.payload_limit(1024, Oversize::Drop)).await;
    let ran = Cli::in_lab(&lab).args(["-q", lab.node(), "cat >/dev/null"]).run_with(&noise(100 << 10)).await;
    assert_eq!(ran.code, Some(255));
    assert!(ran.stderr.contains("--max-payload 1024"), "{}", ran.stderr);
    echoes(&lab, &["--max-payload", "1024"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_odd_and_fragmented_frames_change_nothing() {
    let every = NonZeroU64::new(2).unwrap();
    let fragment = NonZeroUsize::new(100).unwrap();
    let lab = lab(|lab| lab.malformed_every(every).odd_messages().fragment(fragment)).await;
    echoes(&lab, &[]).await;
    all_sessions_over(&lab).await;
}

/// Above the limit it costs the connection, and the next one does not bring it again.
#[tokio::test(flavor = "multi_thread")]
async fn a_frame_of_any_size_is_survived() {
    for bytes in [200 << 10, 1 << 20, 65 << 20] {
        let lab = lab(|lab| lab.oversized_frame(bytes)).await;
        echoes(&lab, &[]).await;
    }
}

/// Before 3.0.655.0 early bytes are lost, before 3.2.1041.0 an acknowledgement is given once only.
#[tokio::test(flavor = "multi_thread")]
async fn agents_of_every_age_carry_a_session_over_a_bad_network() {
    for version in ["2.3.672.0", "3.0.654.0", "3.0.732.0", "3.2.1040.0", "3.3.3572.0"] {
        let connect_time = Duration::from_millis(50);
        let lab = lab(|lab| lab.agent_version(version).connect_time(connect_time).loss(0.02).duplicate(0.02)).await;
        echoes(&lab, &[]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_of_publication_and_a_cut_for_too_many_frames_lose_nothing() {
    let lab = lab(|lab| lab.frame_limit(NonZeroU32::new(1000).unwrap())).await;
    let data = noise(6 << 20);
    let args = ["-q", "--max-payload", "1024", "--max-frames-per-second", "0", lab.node(), "cat"];
    let ran = Cli::in_lab(&lab).args(args).run_with(&data).await;
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    assert!(ran.stdout == data);
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_usual_pace_no_limit_of_frames_is_met() {
    let lab = lab(|lab| lab.frame_limit(NonZeroU32::new(1000).unwrap())).await;
    let data = noise(3 << 20);
    let ran = Cli::in_lab(&lab).args(["-q", "--max-payload", "1024", lab.node(), "cat"]).run_with(&data).await;
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    assert!(!recorded(&lab, |event| matches!(event, Event::FrameLimitExceeded { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_without_data_ends_with_the_services_words() {
    let lab = lab(|lab| lab.idle_timeout(Duration::from_secs(2))).await;
    let ran = run(&lab, &["-q", lab.node(), "sleep 1000"]).await;
    assert_eq!(ran.code, Some(255));
    let says = "ssmssh: the session was ended: Your session timed out due to inactivity.\n";
    assert_eq!(ran.stderr, says);
}

#[tokio::test(flavor = "multi_thread")]
async fn keepalive_keeps_a_session_from_counting_as_idle() {
    let lab = lab(|lab| lab.idle_timeout(Duration::from_secs(5))).await;
    let ran = run(&lab, &["-q", "--keepalive", "1", lab.node(), "sleep 11; echo there"]).await;
    assert_eq!((ran.code, ran.out(), ran.stderr.as_str()), (Some(0), "there\n", ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shell_that_is_too_old_ends_with_the_services_words_and_the_terminal_is_given_back() {
    let lab = lab(|lab| lab.max_duration(Duration::from_secs(4))).await;
    let mut terminal = Terminal::start(Cli::in_lab(&lab).args([lab.node()]));
    terminal.log_in().await;
    assert_eq!(terminal.wait().await, 255);
    terminal.see("ssmssh: the session was ended: Your session reached its maximum duration.").await;
    assert!(terminal.is_as_found());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_behind_the_port_is_given_up_after_its_silence() {
    let lab = lab(|lab| lab).await;
    let silence = ["-o", "ServerAliveInterval=1", "-o", "ServerAliveCountMax=1"];
    let mut running = Cli::in_lab(&lab).args(silence).args(["-q", lab.node(), "cat"]).spawn();
    running.child.stdin.as_mut().unwrap().write_all(b"k").await.unwrap();
    let heard = running.child.stdout.as_mut().unwrap().read_u8();
    assert_eq!(tokio::time::timeout(LIMIT, heard).await.unwrap().unwrap(), b'k');
    let mut faults = Faults::default();
    faults.stalled_port = true;
    lab.set_faults(faults);
    let ran = running.finish().await;
    assert_eq!(ran.code, Some(255));
    let says = "ssmssh: the SSH server no longer answers: nothing has come from it for 2 s\n";
    assert_eq!(ran.stderr, says);
}

/// Nobody says that it is gone: the service goes on in front of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_vanishes_is_told_of_and_given_up() {
    let lab = lab(|lab| lab).await;
    let mut terminal = Terminal::start(Cli::in_lab(&lab).args(["--resume-timeout", "12", lab.node()]));
    terminal.log_in().await;
    lab.vanish_node();
    terminal.type_keys("echo is-anybody-$((4 + 4))\r").await;
    terminal.see("ssmssh: the node does not answer… ~. to give up").await;
    assert_eq!(terminal.wait().await, 255);
    terminal.see(&format!("ssmssh: {} has answered nothing for 12 s", lab.node())).await;
    assert!(terminal.is_as_found());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_service_throttles_is_asked_again() {
    let lab = lab(|lab| lab.throttle(2)).await;
    echoes(&lab, &[]).await;
    eventually("all sessions are over", || lab.open_sessions() == 0).await;
}

/// The agent acknowledges and drops what comes before it is ready for it, and refuses what comes before its port is.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_before_the_agent_is_ready_for_it() {
    let (lag, slow) = (Duration::from_millis(10), Duration::from_millis(300));
    for version in ["3.3.0.0", "3.0.654.0"] {
        let lab = lab(|lab| lab.agent_version(version).completion_lag(lag).connect_time(slow)).await;
        echoes(&lab, &[]).await;
    }
}

/// An agent whose socket is cut sends again what the service did not take, slowly and front first.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_socket_is_cut_comes_back_and_nothing_is_missing() {
    let lab = lab(|lab| lab).await;
    let data = noise(2 << 20);
    let running = Cli::in_lab(&lab).args(["-q", lab.node(), "cat"]);
    let cutting = async {
        eventually("the node is connected", || recorded(&lab, |e| matches!(e, Event::NodeConnected { .. }))).await;
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(150)).await;
            lab.cut_nodes(ssm_lab::Cut::Bye);
        }
    };
    let (ran, ()) = tokio::join!(running.run_with(&data), cutting);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    assert!(ran.stdout == data);
}
