//! Bytes flow, and stop flowing when nobody takes them.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::world::*;
use crate::stream::*;

#[tokio::test(start_paused = true)]
async fn bytes_arrive_whole_and_in_order_both_ways() {
    let mut world = World::new();
    let (stream, mut node) = world.stream(StreamOptions::default()).await;
    let (mut reader, mut writer) = tokio::io::split(stream);
    let (up, down) = (pattern(300_000), pattern(200_000));

    let node_side = async {
        node.print(&down[..100]).await;
        let received = node.read(up.len()).await;
        node.print(&down[100..]).await;
        received
    };
    let mut received = vec![0; down.len()];
    let (wrote, read, arrived) =
        patiently(async { tokio::join!(writer.write_all(&up), reader.read_exact(&mut received), node_side) }).await;
    wrote.unwrap();
    read.unwrap();
    assert!(arrived == up, "what was written arrived");
    assert!(received == down, "what was printed was read");
}

#[tokio::test(start_paused = true)]
async fn a_writer_waits_while_the_node_acknowledges_nothing() {
    let mut world = World::new();
    let mut options = StreamOptions::default();
    options.channel.max_in_flight = 64 << 10;
    let (mut stream, mut node) = world.stream(options).await;

    let data = pattern(256 << 10);
    let mut taken = 0;
    while let Some(Ok(length)) = futures_util::FutureExt::now_or_never(stream.write(&data[taken..])) {
        taken += length;
    }
    assert!(taken > 0 && taken <= 64 << 10, "{taken} bytes in flight");

    let (wrote, arrived) =
        patiently(async { tokio::join!(stream.write_all(&data[taken..]), node.read(data.len())) }).await;
    wrote.unwrap();
    assert!(arrived == data);
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_stops_the_node_and_loses_nothing() {
    let mut world = World::new();
    let mut options = StreamOptions::default();
    options.channel.max_inbox = 1 << 20;
    let (mut stream, mut node) = world.stream(options).await;

    let data = pattern(4 << 20);
    let expected = data.clone();
    let printing = tokio::spawn(async move {
        node.print(&data).await;
        node
    });
    until(|| stream.shared.lock().channel.is_inbox_full()).await;
    assert!(!printing.is_finished(), "the rest of the output waits in front of the socket");

    let mut received = vec![0; expected.len()];
    patiently(stream.read_exact(&mut received)).await.unwrap();
    assert!(received == expected);
    patiently(printing).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_write_needs_no_flush_to_leave() {
    let mut world = World::new();
    let (mut stream, mut node) = world.stream(StreamOptions::default()).await;
    stream.write_all(b"k").await.unwrap();
    assert_eq!(node.read(1).await, b"k");
}

#[tokio::test(start_paused = true)]
async fn the_url_is_dialled_as_it_was_given() {
    let mut world = World::new();
    let _opening = world.open(StreamOptions::default());
    assert_eq!(world.dial().await.url, URL);
}

#[tokio::test(start_paused = true)]
async fn the_handle_tells_about_the_session() {
    let mut world = World::new();
    let opening = world.open(StreamOptions::default());
    let handle = opening.handle();
    assert_eq!((handle.agent_version(), handle.connection().borrow().clone()), (None, ConnectionState::Opening));
    let mut node = world.dial().await.accept().await;
    node.opened().await;
    let (stream, ()) = tokio::join!(opening, node.shake_hands());
    let _stream = stream.unwrap();
    assert_eq!(handle.session_id(), Some(&SessionId("jo-0a1".into())));
    assert_eq!(handle.agent_version(), Some("3.3.0.0"));
    assert_eq!(*handle.connection().borrow(), ConnectionState::Connected);
}

#[tokio::test(start_paused = true)]
async fn nothing_that_is_shown_holds_the_token_or_the_url() {
    let mut world = World::new();
    let (stream, node) = world.stream(brisk()).await;
    let handle = stream.handle();
    let shown = format!("{stream:?} {handle:?}");
    drop(node);
    let dial = world.dial().await;
    dial.refuse(super::super::socket::ConnectError::Refused(400));
    let error = patiently(handle.closed()).await.unwrap_err();
    let io_error = std::io::Error::from(error.clone());
    let shown = format!("{shown} {error} {error:?} {io_error} {io_error:?} {handle:?}");
    for secret in [TOKEN, RESUME_TOKEN, "ws://", "cell-number"] {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
}
