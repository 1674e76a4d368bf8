//! Outages before there is a shell.

use std::time::Duration;

use ssm_lab::{Cut, Event, Lab, Pace};
use ssmssh::ssh::{HostKeyCheck, SessionBuilder, SshError, StrictHostKeyChecking};

use crate::support::cli::{Cli, all_sessions_over, eventually};
use crate::support::gate::Gate;
use crate::support::pty::Terminal;

/// A slow lab that cuts the connection once, in the middle of SSH's key exchange.
async fn lab() -> Lab {
    let lab = Lab::builder().pace(Pace::Ideal).delay(Duration::from_millis(100));
    lab.cut_after_messages(Cut::Reset, 14).start().await.expect("a lab")
}

/// Bars the way to the API once the session is started.
async fn bar(lab: &Lab, gate: &Gate) {
    let connected = |event: &Event| matches!(event, Event::ClientConnected { .. });
    eventually("the client is connected", || lab.events().iter().any(connected)).await;
    gate.shut(true);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_during_the_login_is_told_and_the_login_goes_on_after_it() {
    let lab = lab().await;
    let gate = Gate::to(lab.endpoint_url()).await;
    let cli = Cli::in_lab(&lab).env("AWS_ENDPOINT_URL_SSM", gate.url()).args([lab.node()]);
    let mut terminal = Terminal::start(cli);
    bar(&lab, &gate).await;
    terminal.see("ssmssh: connection lost, reconnecting… Ctrl-C to give up").await;
    assert!(terminal.is_as_found(), "there is no shell yet that would want the keys as they are");
    gate.shut(false);
    terminal.see("ssmssh: connected again after ").await;
    terminal.log_in().await;
    terminal.type_keys("exit\r").await;
    assert_eq!(terminal.wait().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_during_the_login_has_a_limit() {
    let lab = lab().await;
    let gate = Gate::to(lab.endpoint_url()).await;
    let cli = Cli::in_lab(&lab).env("AWS_ENDPOINT_URL_SSM", gate.url());
    let running = cli.args(["--resume-timeout", "1", lab.node(), "true"]).spawn();
    bar(&lab, &gate).await;
    let ran = running.finish().await;
    assert_eq!(ran.code, Some(255));
    assert!(ran.stderr.contains("the connection was lost and did not come back within 1"), "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_cut_during_the_agents_handshake_is_resumed() {
    let lab = Lab::builder().pace(Pace::Ideal).cut_handshakes(Cut::Reset, 3).start().await.expect("a lab");
    let ran = Cli::in_lab(&lab).args(["-q", lab.node(), "echo in"]).run().await;
    assert_eq!((ran.code, ran.out(), ran.stderr.as_str()), (Some(0), "in\n", ""));
    let resumed = lab.events().iter().filter(|event| matches!(event, Event::SessionResumed { .. })).count();
    assert_eq!(resumed, 3, "once for each cut");
    all_sessions_over(&lab).await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_completes_no_login_is_given_up_after_two_minutes() {
    let (near, _far) = tokio::io::duplex(1 << 20);
    let any_key = HostKeyCheck::new(StrictHostKeyChecking::Off, "known_hosts".into(), "node", 22);
    let error = SessionBuilder::new("me").host_keys(any_key).connect(near).await.unwrap_err();
    assert!(matches!(error, SshError::LoginTimeout(limit) if limit == Duration::from_mins(2)), "{error}");
}

/// AWS takes a signature that is five minutes off, and no more.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_hours_wrong_keeps_nobody_out_and_is_told_with_v() {
    let ahead = Duration::from_hours(2);
    let lab = Lab::builder().pace(Pace::Ideal).clock_ahead(ahead).start().await.unwrap();
    let ran = Cli::in_lab(&lab).args(["-v", lab.node(), "true"]).run().await;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stderr.contains("this machine's clock is 2 h slow"), "{}", ran.stderr);
}
