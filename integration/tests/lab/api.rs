//! The API's checks and refusals.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use ssm_lab::{Event, Lab};
use ssmssh::wire::{Body, OpenDataChannel};
use tokio_tungstenite::tungstenite;
use uuid::Uuid;

use crate::client::{Signer, Socket, call, start, upgrade};

async fn lab() -> Lab {
    Lab::builder().start().await.unwrap()
}

fn start_input(lab: &Lab) -> serde_json::Value {
    json!({ "Target": lab.node(), "DocumentName": "AWS-StartSSHSession" })
}

#[tokio::test]
async fn a_wrong_or_missing_signature_gets_awss_error_for_it() {
    let lab = lab().await;
    let unknown = Signer { key_id: "ASIAUNKNOWN".into(), ..Signer::of(&lab) };
    let stale = Signer { token: Some("stale".into()), ..Signer::of(&lab) };
    let forged = Signer { secret: "forged".into(), ..Signer::of(&lab) };
    let astray = Signer { region: "eu-west-1".into(), ..Signer::of(&lab) };
    for (signer, code) in [
        (None, "MissingAuthenticationTokenException"),
        (Some(&unknown), "UnrecognizedClientException"),
        (Some(&stale), "UnrecognizedClientException"),
        (Some(&forged), "InvalidSignatureException"),
        (Some(&astray), "InvalidSignatureException"),
    ] {
        let (status, answer) = call(&lab, signer, "StartSession", start_input(&lab)).await;
        assert_eq!((status, answer["__type"].as_str()), (400, Some(code)), "{answer}");
        assert!(answer["message"].as_str().is_some_and(|message| !message.is_empty()));
    }
    assert_eq!(lab.open_sessions(), 0);
}

#[tokio::test]
async fn unknown_nodes_and_documents_are_told_apart() {
    let lab = lab().await;
    let signer = Signer::of(&lab);
    let elsewhere = json!({ "Target": "i-0fedcba9876543210", "DocumentName": "AWS-StartSSHSession" });
    assert_eq!(call(&lab, Some(&signer), "StartSession", elsewhere).await.1["__type"], "TargetNotConnected");
    let shell = json!({ "Target": lab.node(), "DocumentName": "AWS-Nonsense" });
    assert_eq!(call(&lab, Some(&signer), "StartSession", shell).await.1["__type"], "InvalidDocument");
    let session = json!({ "SessionId": "lab-unknown" });
    assert_eq!(call(&lab, Some(&signer), "ResumeSession", session).await.1["__type"], "DoesNotExistException");
}

#[tokio::test]
async fn a_denied_action_names_itself_and_the_resource() {
    let lab = Lab::builder().deny("ssm:StartSession").start().await.unwrap();
    let (status, answer) = call(&lab, Some(&Signer::of(&lab)), "StartSession", start_input(&lab)).await;
    assert_eq!((status, answer["__type"].as_str()), (400, Some("AccessDeniedException")));
    let message = answer["message"].as_str().unwrap();
    assert!(message.contains("perform: ssm:StartSession on resource: arn:aws:ec2:us-east-1:"), "{message}");
    assert!(message.contains(&format!("instance/{}", lab.node())), "{message}");
}

#[tokio::test]
async fn the_stream_url_leads_to_loopback_and_its_cell_number_needs_care() {
    let lab = lab().await;
    let grant = start(&lab, 22).await;
    let url = grant["StreamUrl"].as_str().unwrap();
    assert!(url.starts_with("ws://127.0.0.1:"), "{url}");
    let cell = url.split_once("cell-number=").unwrap().1;
    assert!(cell.contains('+') && cell.contains('/'), "{url}");
}

#[tokio::test]
async fn an_upgrade_must_be_signed_by_the_right_key() {
    let lab = lab().await;
    let grant = start(&lab, 22).await;
    let forged = Signer { secret: "forged".into(), ..Signer::of(&lab) };
    assert_eq!(upgrade(None, &grant).await.err(), Some(403));
    assert_eq!(upgrade(Some(&forged), &grant).await.err(), Some(403));
    assert!(upgrade(Some(&Signer::of(&lab)), &grant).await.is_ok());
    assert!(
        lab.events()
            .iter()
            .any(|event| matches!(event, Event::Refused { operation, .. } if operation == "OpenDataChannel"))
    );
}

#[tokio::test]
async fn an_unsigned_upgrade_passes_where_the_lab_allows_it() {
    let lab = Lab::builder().allow_unsigned_upgrades().start().await.unwrap();
    assert!(upgrade(None, &start(&lab, 22).await).await.is_ok());
}

#[tokio::test]
async fn a_denied_data_channel_is_a_403_on_the_upgrade() {
    let lab = Lab::builder().deny("ssmmessages:OpenDataChannel").start().await.unwrap();
    let grant = start(&lab, 22).await;
    assert_eq!(upgrade(Some(&Signer::of(&lab)), &grant).await.err(), Some(403));
}

async fn open_with(lab: &Lab, grant: &serde_json::Value, token: &str) -> Socket {
    let mut socket = upgrade(Some(&Signer::of(lab)), grant).await.unwrap();
    let open = OpenDataChannel::client(Uuid::new_v4(), token, Uuid::new_v4(), "1.2.764.0").to_json();
    socket.send(tungstenite::Message::text(open)).await.unwrap();
    socket
}

async fn is_closed(mut socket: Socket) -> bool {
    matches!(socket.next().await, Some(Ok(tungstenite::Message::Close(_))))
}

#[tokio::test]
async fn a_token_is_good_once_and_for_its_own_session() {
    let lab = lab().await;
    let grant = start(&lab, 22).await;
    let token = grant["TokenValue"].as_str().unwrap();
    assert!(is_closed(open_with(&lab, &grant, "guessed").await).await);
    assert!(!is_closed(open_with(&lab, &grant, token).await).await);
    assert!(is_closed(open_with(&lab, &grant, token).await).await);
}

#[tokio::test]
async fn an_expired_token_opens_nothing() {
    let lab = Lab::builder().token_lifetime(Duration::ZERO).start().await.unwrap();
    let grant = start(&lab, 22).await;
    let token = grant["TokenValue"].as_str().unwrap();
    assert!(is_closed(open_with(&lab, &grant, token).await).await);
}

#[tokio::test]
async fn a_ping_before_the_open_message_is_answered_and_skipped() {
    let lab = lab().await;
    let grant = start(&lab, 22).await;
    let mut socket = upgrade(Some(&Signer::of(&lab)), &grant).await.unwrap();
    socket.send(tungstenite::Message::Ping("keepalive".into())).await.unwrap();
    let open =
        OpenDataChannel::client(Uuid::new_v4(), grant["TokenValue"].as_str().unwrap(), Uuid::new_v4(), "1.2.764.0");
    socket.send(tungstenite::Message::text(open.to_json())).await.unwrap();
    let pong = socket.next().await.unwrap().unwrap();
    assert!(matches!(pong, tungstenite::Message::Pong(payload) if payload.as_ref() == b"keepalive"));
    assert!(matches!(socket.next().await, Some(Ok(tungstenite::Message::Binary(_)))));
}
