//! Limits on what a client sends, and oddities of what it gets.

use std::{
    num::{NonZeroU32, NonZeroU64, NonZeroUsize},
    time::Duration,
};

use ssm_lab::{Cut, Event, Lab, Oversize, Pace};
use tokio::time::{Instant, timeout};

use crate::client::{Client, echo_server, eventually, start};

#[tokio::test]
async fn a_payload_above_the_limit_is_never_acknowledged_or_closes_the_socket() {
    let lab = Lab::builder().payload_limit(1024, Oversize::Drop).start().await.unwrap();
    let mut client = Client::connect(&lab, &start(&lab, echo_server().await).await).await;
    client.write(&[1; 1024]).await;
    assert_eq!(client.read(1024).await, [1; 1024]);
    client.write(&[2; 1025]).await;
    eventually("it is refused", || {
        lab.events().iter().any(|event| matches!(event, Event::PayloadRefused { length: 1025, .. }))
    })
    .await;
    assert!(timeout(Duration::from_millis(50), client.read(1)).await.is_err());

    let lab = Lab::builder().payload_limit(1024, Oversize::Close).start().await.unwrap();
    let mut client = Client::connect(&lab, &start(&lab, echo_server().await).await).await;
    client.write(&[2; 1025]).await;
    assert_eq!(client.wait_disconnected().await.map(|(code, _)| code), Some(1009));
}

#[tokio::test]
async fn a_client_that_keeps_sending_too_many_frames_is_cut() {
    let lab = Lab::builder()
        .frame_limit(NonZeroU32::new(50).unwrap())
        .cuts([Cut::Reset])
        .pace(Pace::Ideal)
        .start()
        .await
        .unwrap();
    let mut client = Client::connect(&lab, &start(&lab, echo_server().await).await).await;
    let exceeded = || lab.events().iter().any(|event| matches!(event, Event::FrameLimitExceeded { .. }));
    let start = Instant::now();
    while !exceeded() {
        assert!(start.elapsed() < Duration::from_secs(30));
        client.try_write(b"x").await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(client.wait_disconnected().await, None);
}

#[tokio::test]
async fn malformed_oversized_and_fragmented_frames_leave_the_sound_ones_whole() {
    let lab = Lab::builder()
        .malformed_every(NonZeroU64::new(1).unwrap())
        .oversized_frame(300_000)
        .fragment(NonZeroUsize::new(100).unwrap())
        .odd_messages()
        .start()
        .await
        .unwrap();
    let mut client = Client::connect(&lab, &start(&lab, echo_server().await).await).await;
    let data: Vec<u8> = (0..20_000u32).map(|n| (n % 251) as u8).collect();
    client.write(&data).await;
    assert_eq!(client.read(data.len()).await, data);
    assert!(client.malformed > 20, "{}", client.malformed);
    assert_eq!(client.largest_frame, 300_000);
}

#[tokio::test]
async fn a_link_with_a_rate_passes_no_more_than_that() {
    let lab =
        Lab::builder().rate(NonZeroU64::new(200_000).unwrap()).queue(10_000).pace(Pace::Ideal).start().await.unwrap();
    let mut client = Client::connect(&lab, &start(&lab, echo_server().await).await).await;
    let start = Instant::now();
    let data = vec![7; 100_000];
    client.write(&data).await;
    assert!(client.read(data.len()).await == data);
    // The bound is the fault itself: half a second at that rate, and never less.
    assert!(start.elapsed() >= Duration::from_millis(500));
}
