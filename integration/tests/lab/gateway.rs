//! The gateway and the node model, through the hand-written client.

use std::time::Duration;

use serde_json::json;
use ssm_lab::{Cut, Event, Lab, Pace};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::{Client, Signer, call, echo_server, eventually, start};

#[tokio::test]
async fn bytes_pass_through_gateway_node_and_port_both_ways() {
    let lab = Lab::builder().pace(Pace::Ideal).agent_version("3.3.131.0").start().await.unwrap();
    let mut client = Client::connect(&lab, &start(&lab, echo_server().await).await).await;
    assert_eq!(client.agent_version, "3.3.131.0");
    let data: Vec<u8> = (0..300_000u32).map(|n| (n % 251) as u8).collect();
    for chunk in data.chunks(50_000) {
        client.write(chunk).await;
        assert_eq!(client.read(chunk.len()).await, chunk);
    }
    lab.shutdown().await;
}

#[tokio::test]
async fn port_22_is_the_embedded_ssh_server() {
    let lab = Lab::builder().start().await.unwrap();
    let mut client = Client::connect(&lab, &start(&lab, 22).await).await;
    assert_eq!(client.read(8).await, b"SSH-2.0-");
}

#[tokio::test]
async fn the_terminate_flag_ends_the_session_and_the_client_hears_of_it() {
    let lab = Lab::builder().start().await.unwrap();
    let mut client = Client::connect(&lab, &start(&lab, 22).await).await;
    client.read(8).await;
    assert_eq!(lab.open_sessions(), 1);
    client.terminate().await;
    assert_eq!(client.wait_closed().await, "");
    assert_eq!(lab.open_sessions(), 0);
    assert!(lab.events().iter().any(|event| matches!(event, Event::TerminateFlagSeen { .. })));
    assert_eq!(client.wait_disconnected().await.map(|(code, _)| code), Some(1000));
}

#[tokio::test]
async fn terminate_session_ends_both_sides() {
    let lab = Lab::builder().start().await.unwrap();
    let grant = start(&lab, 22).await;
    let mut client = Client::connect(&lab, &grant).await;
    let (status, _) =
        call(&lab, Some(&Signer::of(&lab)), "TerminateSession", json!({ "SessionId": grant["SessionId"] })).await;
    assert_eq!(status, 200);
    assert_eq!(client.wait_closed().await, "");
    eventually("the node leaves", || lab.events().iter().any(|event| matches!(event, Event::NodeDisconnected { .. })))
        .await;
}

#[tokio::test]
async fn a_session_that_nobody_opened_can_be_terminated_too() {
    let lab = Lab::builder().start().await.unwrap();
    let grant = start(&lab, 22).await;
    let input = json!({ "SessionId": grant["SessionId"] });
    call(&lab, Some(&Signer::of(&lab)), "TerminateSession", input.clone()).await;
    assert_eq!(lab.open_sessions(), 0);
    let (status, answer) = call(&lab, Some(&Signer::of(&lab)), "ResumeSession", input).await;
    assert_eq!((status, &answer["TokenValue"]), (200, &json!("")));
}

#[tokio::test]
async fn the_end_of_the_port_ends_the_session_after_its_last_bytes() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let lab = Lab::builder().start().await.unwrap();
    let mut client = Client::connect(&lab, &start(&lab, listener.local_addr().unwrap().port()).await).await;
    let (mut port, _) = listener.accept().await.unwrap();
    port.write_all(&[7; 5000]).await.unwrap();
    drop(port);
    assert_eq!(client.read(5000).await, [7; 5000]);
    assert_eq!(client.wait_closed().await, "");
}

#[tokio::test]
async fn nothing_listening_on_the_port_is_reported_once_the_crash_is_noticed() {
    let lab = Lab::builder().crash_notice(Duration::from_millis(20)).start().await.unwrap();
    let closed_port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut client = Client::connect(&lab, &start(&lab, closed_port).await).await;
    assert!(client.wait_closed().await.contains("document process failed unexpectedly"));
}

#[tokio::test]
async fn a_cut_client_resumes_where_it_was() {
    for (cut, expected) in [(Cut::Bye, Some((1000, "Bye".to_owned()))), (Cut::Reset, None)] {
        let lab = Lab::builder().start().await.unwrap();
        let grant = start(&lab, echo_server().await).await;
        let mut client = Client::connect(&lab, &grant).await;
        client.write(b"before").await;
        assert_eq!(client.read(6).await, b"before");
        lab.cut_clients(cut);
        assert_eq!(client.wait_disconnected().await, expected, "{cut:?}");
        let (_, mut resumed) =
            call(&lab, Some(&Signer::of(&lab)), "ResumeSession", json!({ "SessionId": grant["SessionId"] })).await;
        assert_ne!(resumed["TokenValue"], grant["TokenValue"]);
        resumed["StreamUrl"] = grant["StreamUrl"].clone();
        client.reconnect(&lab, &resumed).await;
        client.write(b"after").await;
        assert_eq!(client.read(5).await, b"after");
    }
}

#[tokio::test]
async fn a_cut_by_count_comes_once() {
    let lab = Lab::builder().cut_after_messages(Cut::Bye, 20).start().await.unwrap();
    let mut client = Client::connect(&lab, &start(&lab, echo_server().await).await).await;
    for _ in 0..20 {
        client.write(b"x").await;
    }
    assert_eq!(client.wait_disconnected().await, Some((1000, "Bye".to_owned())));
}

#[tokio::test]
async fn a_refused_resume_gives_no_token() {
    let lab = Lab::builder().refuse_resume().start().await.unwrap();
    let grant = start(&lab, 22).await;
    let input = json!({ "SessionId": grant["SessionId"] });
    let (status, answer) = call(&lab, Some(&Signer::of(&lab)), "ResumeSession", input).await;
    assert_eq!((status, &answer["TokenValue"]), (200, &json!("")));
}

#[tokio::test]
async fn a_cut_node_comes_back_and_goes_on_where_it_was() {
    for cut in [Cut::Bye, Cut::Reset] {
        let lab = Lab::builder().start().await.unwrap();
        let mut client = Client::connect(&lab, &start(&lab, echo_server().await).await).await;
        client.write(b"before").await;
        assert_eq!(client.read(6).await, b"before");
        lab.cut_nodes(cut);
        eventually("the node is back", || {
            lab.events().iter().filter(|event| matches!(event, Event::NodeConnected { .. })).count() == 2
        })
        .await;
        client.write(b"after").await;
        assert_eq!(client.read(5).await, b"after");
        assert_eq!(lab.open_sessions(), 1);
    }
}

#[tokio::test]
async fn somebody_elses_server_behind_the_node_gets_no_user_and_no_key_of_the_labs() {
    let lab = Lab::builder().sshd(echo_server().await).start().await.unwrap();
    let mut client = Client::connect(&lab, &start(&lab, 22).await).await;
    client.write(b"mine").await;
    assert_eq!(client.read(4).await, b"mine");
    assert_eq!(lab.user(), "");
    assert!(lab.env().iter().all(|(name, _)| name != "SSMSSH_USER" && name != "SSMSSH_IDENTITY"));
}

#[tokio::test]
async fn more_than_fits_the_buffers_waits_for_the_port_and_is_whole() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let lab = Lab::builder().start().await.unwrap();
    let mut client = Client::connect(&lab, &start(&lab, listener.local_addr().unwrap().port()).await).await;
    let (mut port, _) = listener.accept().await.unwrap();
    let data: Vec<u8> = (0..30_000_000u32).map(|n| (n % 239) as u8).collect();
    let sent = data.clone();
    let writing = tokio::spawn(async move {
        client.write(&sent).await;
        client
    });
    let mut received = vec![0; data.len()];
    port.read_exact(&mut received).await.unwrap();
    assert!(received == data);
    writing.await.unwrap();
}
