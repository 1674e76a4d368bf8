//! Nodes in trouble.

use std::time::Duration;

use serde_json::json;
use ssm_lab::{Event, Lab};
use tokio::time::timeout;

use crate::client::{Client, Signer, call, echo_server, eventually, start};

fn node_left(lab: &Lab) -> bool {
    lab.events().iter().any(|event| matches!(event, Event::NodeDisconnected { .. }))
}

#[tokio::test]
async fn without_an_sshd_the_worker_dies_right_after_the_handshake() {
    let lab = Lab::builder().no_sshd().start().await.unwrap();
    let mut client = Client::connect(&lab, &start(&lab, 22).await).await;
    eventually("the node leaves", || node_left(&lab)).await;
    // Nobody tells the client before the node's master has noticed, a minute later.
    assert!(timeout(Duration::from_millis(100), client.wait_closed()).await.is_err());
    assert_eq!(lab.open_sessions(), 1);
}

#[tokio::test]
async fn the_node_echoes_on_port_7_discards_on_9_and_generates_on_19() {
    let lab = Lab::builder().start().await.unwrap();
    let mut echo = Client::connect(&lab, &start(&lab, 7).await).await;
    echo.write(b"there and back").await;
    assert_eq!(echo.read(14).await, b"there and back");
    let mut discard = Client::connect(&lab, &start(&lab, 9).await).await;
    discard.write(b"gone").await;
    assert!(timeout(Duration::from_millis(100), discard.read(1)).await.is_err());
    let mut chargen = Client::connect(&lab, &start(&lab, 19).await).await;
    assert_eq!(chargen.read(5000).await.len(), 5000);
}

#[tokio::test]
async fn a_node_that_vanishes_leaves_the_client_without_a_word() {
    let lab = Lab::builder().start().await.unwrap();
    let mut client = Client::connect(&lab, &start(&lab, echo_server().await).await).await;
    client.write(b"before").await;
    assert_eq!(client.read(6).await, b"before");
    lab.vanish_node();
    eventually("the node leaves", || node_left(&lab)).await;
    client.write(b"after").await;
    assert!(timeout(Duration::from_millis(100), client.read(1)).await.is_err());
    assert!(client.is_answered_within(Duration::from_secs(10)).await);
    let input = json!({ "Target": lab.node(), "DocumentName": "AWS-StartSSHSession" });
    let (_, answer) = call(&lab, Some(&Signer::of(&lab)), "StartSession", input).await;
    assert_eq!(answer["__type"], "TargetNotConnected");
}

#[tokio::test]
async fn a_node_can_vanish_by_itself_after_a_while() {
    let lab = Lab::builder().vanish_after(Duration::from_millis(300)).start().await.unwrap();
    let _client = Client::connect(&lab, &start(&lab, 22).await).await;
    eventually("the node leaves", || node_left(&lab)).await;
}

#[tokio::test]
async fn a_stalled_server_takes_the_connection_and_nothing_else_until_it_goes_on() {
    let lab = Lab::builder().stalled_port().start().await.unwrap();
    let mut client = Client::connect(&lab, &start(&lab, 22).await).await;
    assert!(timeout(Duration::from_millis(200), client.read(1)).await.is_err());
    let mut faults = lab.faults();
    faults.stalled_port = false;
    lab.set_faults(faults);
    assert_eq!(client.read(8).await, b"SSH-2.0-");
}

#[tokio::test]
async fn an_old_agent_loses_what_comes_before_its_connection_and_a_newer_one_refuses_it() {
    for (version, acknowledged) in [("3.0.654.0", true), ("3.0.655.0", false)] {
        let lab = Lab::builder().agent_version(version).connect_time(Duration::from_secs(2)).start().await.unwrap();
        let mut client = Client::connect(&lab, &start(&lab, echo_server().await).await).await;
        client.write(b"early").await;
        let answered = timeout(Duration::from_millis(500), client.wait_acknowledged()).await.is_ok();
        assert_eq!(answered, acknowledged, "{version}");
    }
}

#[tokio::test]
async fn input_right_after_the_handshake_can_be_acknowledged_and_lost() {
    let lab = Lab::builder().completion_lag(Duration::from_hours(1)).start().await.unwrap();
    let mut client = Client::connect(&lab, &start(&lab, echo_server().await).await).await;
    client.write(b"early").await;
    client.wait_acknowledged().await;
    assert!(timeout(Duration::from_millis(100), client.read(1)).await.is_err());
}
