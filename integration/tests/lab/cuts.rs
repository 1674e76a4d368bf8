//! Every way in which the lab cuts a client.

use std::{
    num::{NonZeroU64, NonZeroUsize},
    time::Duration,
};

use serde_json::{Value, json};
use ssm_lab::{Cut, Event, Lab};
use tokio::time::timeout;

use crate::client::{Client, Signer, call, echo_server, eventually, start};

async fn resume(lab: &Lab, client: &mut Client, grant: &Value) {
    let input = json!({ "SessionId": grant["SessionId"] });
    let (status, mut resumed) = call(lab, Some(&Signer::of(lab)), "ResumeSession", input).await;
    assert_eq!(status, 200, "{resumed}");
    resumed["StreamUrl"] = grant["StreamUrl"].clone();
    client.reconnect(lab, &resumed).await;
}

#[tokio::test]
async fn in_a_silence_nothing_passes_and_after_it_everything_does() {
    let lab = Lab::builder().silence(Duration::from_millis(400)).start().await.unwrap();
    let mut client = Client::connect(&lab, &start(&lab, echo_server().await).await).await;
    lab.cut_clients(Cut::Silence);
    client.write(b"held up").await;
    assert!(timeout(Duration::from_millis(100), client.read(1)).await.is_err());
    assert_eq!(client.read(7).await, b"held up");
}

#[tokio::test]
async fn a_silence_without_end_ends_for_who_resumes_on_a_new_socket() {
    let lab = Lab::builder().start().await.unwrap();
    let grant = start(&lab, echo_server().await).await;
    let mut client = Client::connect(&lab, &grant).await;
    client.write(b"before").await;
    assert_eq!(client.read(6).await, b"before");
    lab.cut_clients(Cut::Silence);
    eventually_silent(&mut client).await;
    resume(&lab, &mut client, &grant).await;
    client.write(b"after").await;
    assert_eq!(client.read(5).await, b"after");
}

/// A ping is answered for as long as the socket is served.
async fn eventually_silent(client: &mut Client) {
    while client.is_answered_within(Duration::from_millis(100)).await {}
}

#[tokio::test]
async fn a_nodes_socket_can_fall_silent_too() {
    let lab = Lab::builder().silence(Duration::from_millis(400)).start().await.unwrap();
    let mut client = Client::connect(&lab, &start(&lab, echo_server().await).await).await;
    lab.cut_nodes(Cut::Silence);
    client.write(b"held up").await;
    assert!(timeout(Duration::from_millis(100), client.read(1)).await.is_err());
    assert_eq!(client.read(7).await, b"held up");
    assert_eq!(lab.events().iter().filter(|event| matches!(event, Event::NodeConnected { .. })).count(), 1);
}

#[tokio::test]
async fn cuts_come_in_turn_and_after_every_so_many_messages() {
    let lab = Lab::builder()
        .cut_every_messages(Cut::Bye, NonZeroU64::new(40).unwrap())
        .cuts([Cut::Bye, Cut::Reset])
        .start()
        .await
        .unwrap();
    let grant = start(&lab, echo_server().await).await;
    let mut client = Client::connect(&lab, &grant).await;
    for expected in [Some((1000, "Bye".to_owned())), None, Some((1000, "Bye".to_owned()))] {
        for _ in 0..40 {
            client.try_write(b"x").await;
        }
        assert_eq!(client.wait_disconnected().await, expected);
        resume(&lab, &mut client, &grant).await;
    }
}

#[tokio::test]
async fn a_client_can_be_cut_during_its_handshake() {
    let lab = Lab::builder().cut_handshakes(Cut::Bye, 2).start().await.unwrap();
    let grant = start(&lab, 22).await;
    let mut client = Client::open_only(&lab, &grant).await;
    for _ in 0..2 {
        assert_eq!(client.wait_disconnected().await, Some((1000, "Bye".to_owned())));
        resume(&lab, &mut client, &grant).await;
    }
    assert_eq!(client.read(8).await, b"SSH-2.0-");
}

#[tokio::test]
async fn sockets_are_cut_by_time_again_and_again() {
    let lab = Lab::builder().cut_every(Cut::Bye, Duration::from_millis(50)).start().await.unwrap();
    let grant = start(&lab, echo_server().await).await;
    let mut client = Client::open_only(&lab, &grant).await;
    for _ in 0..3 {
        assert_eq!(client.wait_disconnected().await, Some((1000, "Bye".to_owned())));
        resume(&lab, &mut client, &grant).await;
    }
    eventually("it is over", || {
        lab.events().iter().filter(|event| matches!(event, Event::ClientDisconnected { .. })).count() >= 4
    })
    .await;
}

#[tokio::test]
async fn one_session_can_be_cut_and_the_others_not() {
    let lab = Lab::builder()
        .cut_every_messages(Cut::Bye, NonZeroU64::new(20).unwrap())
        .cut_session(NonZeroUsize::new(2).unwrap())
        .start()
        .await
        .unwrap();
    let port = echo_server().await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(Client::connect(&lab, &start(&lab, port).await).await);
    }
    for client in &mut clients {
        for _ in 0..20 {
            client.try_write(b"x").await;
        }
    }
    assert_eq!(clients[1].wait_disconnected().await, Some((1000, "Bye".to_owned())));
    assert_eq!(clients[0].read(20).await, [b'x'; 20]);
    assert!(lab.cut_client(3, Cut::Bye) && !lab.cut_client(4, Cut::Bye));
    assert_eq!(clients[2].wait_disconnected().await, Some((1000, "Bye".to_owned())));
    assert!(lab.end_session(1, "enough") && !lab.end_session(1, "enough"));
    assert_eq!(lab.open_sessions(), 2);
}
