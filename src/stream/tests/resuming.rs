//! A lost connection is resumed, and never looks like an end.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::world::*;
use crate::stream::socket::ConnectError;
use crate::stream::*;

#[tokio::test(start_paused = true)]
async fn a_lost_connection_is_resumed_and_nothing_is_lost_or_doubled() {
    let mut world = World::new();
    let (mut stream, mut node) = world.stream(brisk()).await;
    let handle = stream.handle();
    stream.write_all(b"first ").await.unwrap();
    assert_eq!(node.read(6).await, b"first ");
    stream.write_all(b"second ").await.unwrap();
    let lost = node.next_unacknowledged().await.unwrap();
    assert_eq!(lost.payload.as_ref(), b"second ");

    let node = node.hang_up();
    until(|| matches!(*handle.connection().borrow(), ConnectionState::Reconnecting { .. })).await;
    stream.write_all(b"third").await.unwrap();

    let dial = world.dial().await;
    assert_eq!(dial.url, URL, "the first URL stays");
    let mut node = node.moves_to(dial.accept().await);
    assert_eq!(node.opened().await.token_value, RESUME_TOKEN);
    assert_eq!(node.read(12).await, b"second third");
    node.print(b"still here").await;
    let mut received = [0; 10];
    patiently(stream.read_exact(&mut received)).await.unwrap();
    assert_eq!(&received, b"still here");
    assert_eq!(*handle.connection().borrow(), ConnectionState::Connected);
    assert_eq!(world.service.calls(), ["start", "sign", "resume", "sign"]);
}

#[tokio::test(start_paused = true)]
async fn the_service_closing_the_websocket_is_a_lost_connection() {
    let mut world = World::new();
    let (mut stream, node) = world.stream(brisk()).await;
    let handle = stream.handle();
    let node = node.say_bye().await;
    let dial = world.dial().await;
    let ConnectionState::Reconnecting { cause, .. } = handle.connection().borrow().clone() else {
        panic!("not reconnecting")
    };
    assert!(cause.contains("1000 Bye"), "{cause}");
    let mut node = node.moves_to(dial.accept().await);
    node.opened().await;
    node.print(b"x").await;
    assert_eq!(patiently(stream.read_u8()).await.unwrap(), b'x');
}

#[tokio::test(start_paused = true)]
async fn what_fails_in_passing_is_tried_again_until_it_works() {
    let mut world = World::new();
    let (mut stream, node) = world.stream(brisk()).await;
    let expired = ServiceError::Expired("log in".into());
    world.service.resume_failures.lock().unwrap().push_back(expired);
    let node = node.hang_up();
    world.dial().await.refuse(ConnectError::Refused(503));
    let mut node = node.moves_to(world.dial().await.accept().await);
    node.opened().await;
    node.print(b"x").await;
    assert_eq!(patiently(stream.read_u8()).await.unwrap(), b'x');
}

#[tokio::test(start_paused = true)]
async fn a_session_that_cannot_be_resumed_is_an_error_after_all_bytes() {
    let mut world = World::new();
    let (mut stream, mut node) = world.stream(brisk()).await;
    let ended = ServiceError::SessionEnded { session: SessionId("jo-0a1".into()), message: "timed out".into() };
    world.service.resume_failures.lock().unwrap().push_back(ended);
    node.print(b"last words").await;
    node.hang_up();

    let mut received = Vec::new();
    let error = patiently(stream.read_to_end(&mut received)).await.unwrap_err();
    assert_eq!(received, b"last words");
    let found = StreamError::from_io(&error);
    assert!(matches!(found, Some(StreamError::Service(ServiceError::SessionEnded { .. }))), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_does_not_come_back_in_time_is_an_error() {
    let mut world = World::new();
    let options = StreamOptions { resume_timeout: Duration::from_millis(300), ..brisk() };
    let (mut stream, node) = world.stream(options).await;
    node.hang_up();
    let refusing = async {
        loop {
            world.dial().await.refuse(ConnectError::Refused(503));
        }
    };
    let mut byte = [0];
    let error = tokio::select! {
        error = patiently(stream.read(&mut byte)) => error.unwrap_err(),
        () = refusing => unreachable!(),
    };
    let Some(StreamError::Lost { source, .. }) = StreamError::from_io(&error) else { panic!("{error:?}") };
    assert!(matches!(**source, StreamError::UpgradeRefused { status: 503, .. }), "{source:?}");
    let _ = patiently(stream.handle().closed()).await;
    assert_eq!(world.service.calls().last().map(String::as_str), Some("terminate"));
}

#[tokio::test(start_paused = true)]
async fn a_stream_dropped_while_it_is_cut_off_is_terminated_and_tells_what_was_not_delivered() {
    for (written, is_delivered) in [(&b""[..], true), (b"lost", false)] {
        let mut world = World::new();
        let (mut stream, node) = world.stream(brisk()).await;
        let handle = stream.handle();
        node.hang_up();
        let _unanswered = world.dial().await;
        stream.write_all(written).await.unwrap();
        drop(stream);
        match patiently(handle.closed()).await {
            Ok(()) => assert!(is_delivered),
            Err(error) => assert!(matches!(error, StreamError::Unconfirmed) && !is_delivered, "{error:?}"),
        }
        assert_eq!(world.service.calls().last().map(String::as_str), Some("terminate"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_during_a_cut_still_delivers_once_the_connection_is_back() {
    let mut world = World::new();
    let options = StreamOptions { drain_timeout: Duration::from_secs(10), ..StreamOptions::default() };
    let (mut stream, node) = world.stream(options).await;
    let node = node.hang_up();
    let dial = world.dial().await;
    stream.write_all(b"kept").await.unwrap();
    let resumed = async {
        let mut node = node.moves_to(dial.accept().await);
        node.opened().await;
        assert_eq!(node.read(4).await, b"kept");
        node.terminated().await;
    };
    let (shut, ()) = patiently(async { tokio::join!(stream.shutdown(), resumed) }).await;
    shut.unwrap();
    assert_eq!(world.service.calls(), ["start", "sign", "resume", "sign"]);
}

#[tokio::test(start_paused = true)]
async fn a_connection_lost_during_the_handshake_is_resumed() {
    let mut world = World::new();
    let opening = world.open(brisk());
    let mut node = world.dial().await.accept().await;
    node.opened().await;
    let node = node.hang_up();
    let mut node = node.moves_to(world.dial().await.accept().await);
    assert_eq!(node.opened().await.token_value, RESUME_TOKEN);
    let (stream, ()) = tokio::join!(patiently(opening), node.shake_hands());
    stream.unwrap();
}
