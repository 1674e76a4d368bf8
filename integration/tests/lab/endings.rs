//! Sessions that the service ends.

use std::time::Duration;

use ssm_lab::{Event, Lab};

use crate::client::{Client, echo_server, eventually, start};

#[tokio::test]
async fn a_session_without_data_times_out_with_a_text_and_one_with_data_does_not() {
    let lab = Lab::builder().idle_timeout(Duration::from_millis(600)).start().await.unwrap();
    let mut client = Client::connect(&lab, &start(&lab, echo_server().await).await).await;
    for _ in 0..8 {
        client.write(b"busy").await;
        assert_eq!(client.read(4).await, b"busy");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(client.wait_closed().await.contains("inactivity"));
    assert_eq!(client.wait_disconnected().await.map(|(code, _)| code), Some(1000));
}

#[tokio::test]
async fn a_session_that_is_too_old_ends_with_a_text_on_both_sides() {
    let lab = Lab::builder().max_duration(Duration::from_millis(500)).start().await.unwrap();
    let mut client = Client::connect(&lab, &start(&lab, echo_server().await).await).await;
    assert!(client.wait_closed().await.contains("maximum duration"));
    eventually("the node leaves", || lab.events().iter().any(|event| matches!(event, Event::NodeDisconnected { .. })))
        .await;
    assert_eq!(lab.open_sessions(), 0);
}

#[tokio::test]
async fn a_test_can_end_sessions_with_a_text_of_its_own() {
    let lab = Lab::builder().odd_messages().start().await.unwrap();
    let mut client = Client::connect(&lab, &start(&lab, 22).await).await;
    lab.end_sessions("enough");
    assert_eq!(client.wait_closed().await, "enough");
}
