//! A service that does not take large payloads.

use std::error::Error as _;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::world::*;
use crate::stream::*;
use crate::wire::PayloadType;

/// The error that the stream ends with.
async fn refusal(stream: &mut SsmStream) -> StreamError {
    let error = patiently(stream.read_u8()).await.unwrap_err();
    let refused = StreamError::from_io(&error).cloned();
    let Some(StreamError::PayloadRefused { size: 5000, .. }) = refused else { panic!("{error:?}") };
    assert!(error.to_string().contains("--max-payload 1024"), "{error}");
    refused.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_large_payload_that_cuts_the_connection_again_and_again_is_to_blame() {
    let mut world = World::new();
    let (mut stream, mut node) = world.stream(brisk()).await;
    stream.write_all(&pattern(100)).await.unwrap();
    node.read(100).await;
    stream.write_all(&pattern(5000)).await.unwrap();
    for _ in 0..2 {
        assert_eq!(node.next_unacknowledged().await.unwrap().payload.len(), 5000);
        node = node.hang_up().moves_to(world.dial().await.accept().await);
        node.opened().await;
    }
    assert_eq!(node.next_unacknowledged().await.unwrap().payload.len(), 5000);
    node.hang_up();
    assert!(refusal(&mut stream).await.source().is_some());
    let _ = patiently(stream.handle().closed()).await;
    assert_eq!(world.service.calls().last().map(String::as_str), Some("terminate"));
}

#[tokio::test(start_paused = true)]
async fn a_service_that_calls_a_message_too_big_is_believed_at_once() {
    let mut world = World::new();
    let (mut stream, mut node) = world.stream(brisk()).await;
    stream.write_all(&pattern(5000)).await.unwrap();
    node.next_unacknowledged().await.unwrap();
    node.close_websocket(1009, "message too big").await;
    let refused = refusal(&mut stream).await;
    assert!(refused.source().unwrap().to_string().contains("1009 message too big"), "{refused:?}");
}

/// Reads until the client is gone and acknowledges what is small.
async fn swallow_large_ones(mut node: Node) {
    while let Some(message) = node.next_unacknowledged().await {
        if message.payload.len() <= 1024 {
            node.acknowledge(message.sequence, message.id).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_large_payload_that_is_never_acknowledged_is_to_blame_where_small_ones_get_through() {
    for (is_something_written, seconds) in [(true, 10), (false, 15)] {
        let mut world = World::new();
        let (mut stream, mut node) = world.stream(brisk()).await;
        stream.write_all(b"k").await.unwrap();
        node.read(1).await;
        let before = Instant::now();
        stream.write_all(&pattern(5000)).await.unwrap();
        if is_something_written {
            until(|| stream.shared.lock().channel.stats().in_flight >= 5000).await;
            stream.write_all(b"k").await.unwrap();
        }
        let (refused, ()) = tokio::join!(refusal(&mut stream), swallow_large_ones(node));
        assert!(refused.source().is_none());
        assert_eq!(before.elapsed().as_secs(), seconds);
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_freezes_at_the_first_large_payload_is_silent_and_no_payload_is_to_blame() {
    let mut world = World::new();
    let (mut stream, mut node) = world.stream(brisk()).await;
    stream.write_all(b"k").await.unwrap();
    node.read(1).await;
    let before = Instant::now();
    stream.write_all(&pattern(5000)).await.unwrap();
    let swallowing = async { while node.next_unacknowledged().await.is_some() {} };
    let (error, ()) = tokio::join!(patiently(stream.read_u8()), swallowing);
    let error = error.unwrap_err();
    let silent = StreamError::from_io(&error);
    assert!(matches!(silent, Some(StreamError::NodeSilent { unproven: Some(5000), .. })), "{error}");
    assert_eq!(before.elapsed().as_secs(), 600);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_wakes_up_again_after_a_large_payload_goes_on() {
    let mut world = World::new();
    let (mut stream, mut node) = world.stream(brisk()).await;
    stream.write_all(b"k").await.unwrap();
    node.read(1).await;
    stream.write_all(&pattern(5000)).await.unwrap();
    node.idle(Duration::from_mins(2)).await;
    assert!(node.read(5000).await == pattern(5000));
    stream.write_all(b"k").await.unwrap();
    let question = node.receive().await;
    assert_eq!(question.0, PayloadType::Size, "it asked once, behind the payload");
    assert_eq!(node.read(1).await, b"k");
}

#[tokio::test(start_paused = true)]
async fn once_a_large_payload_was_acknowledged_silence_and_cuts_are_not_its_fault() {
    let mut world = World::new();
    let (mut stream, mut node) = world.stream(brisk()).await;
    stream.write_all(&pattern(5000)).await.unwrap();
    node.read(5000).await;
    stream.write_all(&pattern(5000)).await.unwrap();
    for _ in 0..5 {
        node.next_unacknowledged().await.unwrap();
        node = node.hang_up().moves_to(world.dial().await.accept().await);
        node.opened().await;
    }
    node.idle(Duration::from_mins(5)).await;
    assert!(node.read(5000).await == pattern(5000));
}

#[tokio::test(start_paused = true)]
async fn what_was_taken_vouches_for_twice_its_size_and_no_more() {
    for (taken, is_proven) in [(2499, false), (2500, true)] {
        let mut world = World::new();
        let (mut stream, mut node) = world.stream(brisk()).await;
        stream.write_all(&pattern(taken)).await.unwrap();
        node.read(taken).await;
        stream.write_all(&pattern(5000)).await.unwrap();
        node.next_unacknowledged().await.unwrap();
        node.close_websocket(1009, "message too big").await;
        if is_proven {
            world.dial().await.accept().await;
        } else {
            refusal(&mut stream).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn each_payload_in_doubt_is_asked_about() {
    let mut world = World::new();
    let (mut stream, mut node) = world.stream(brisk()).await;
    for size in [2000, 5000] {
        stream.write_all(&pattern(size)).await.unwrap();
        node.idle(Duration::from_secs(6)).await;
        assert!(node.read(size).await == pattern(size));
        assert_eq!(node.receive().await.0, PayloadType::Size, "{size}");
    }
}

#[tokio::test(start_paused = true)]
async fn acknowledgements_that_wait_behind_a_full_inbox_are_not_missed() {
    let mut world = World::new();
    let mut options = StreamOptions::default();
    options.channel.max_inbox = 1 << 20;
    let (mut stream, mut node) = world.stream(options).await;
    // With 128 bytes beside each KiB.
    let data = pattern(911 << 10);
    node.print(&data).await;
    until(|| stream.shared.lock().channel.is_inbox_full()).await;
    stream.write_all(&pattern(5000)).await.unwrap();
    node.read(5000).await;
    node.idle(Duration::from_mins(5)).await;
    let mut received = vec![0; data.len()];
    patiently(stream.read_exact(&mut received)).await.unwrap();
    stream.write_all(b"k").await.unwrap();
    assert_eq!(node.read(1).await, b"k");
    assert_eq!(world.service.calls(), ["start", "sign"]);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_away_and_takes_small_payloads_first_is_given_time_for_the_large_one() {
    for away in (11_000..21_000).step_by(250).map(Duration::from_millis) {
        let mut world = World::new();
        let (mut stream, mut node) = world.stream(brisk()).await;
        stream.write_all(b"k").await.unwrap();
        node.read(1).await;
        for size in [100, 100, 100, 5000, 100, 100, 100] {
            stream.write_all(&pattern(size)).await.unwrap();
            node.idle(Duration::from_millis(20)).await;
        }
        node.idle(away).await;
        tokio::select! {
            read = stream.read_u8() => panic!("{away:?}: {read:?}"),
            () = async { while node.next().await.is_some() {} } => panic!("{away:?}: the connection was given up"),
            () = tokio::time::sleep(Duration::from_mins(1)) => {}
        }
    }
}
