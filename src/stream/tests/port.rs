//! A port of the node on which nothing listens, and a node that answers no more.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::world::*;
use crate::stream::*;

#[tokio::test(start_paused = true)]
async fn a_port_that_takes_nothing_is_given_up_by_name_and_the_session_terminated() {
    let mut world = World::new();
    let (mut stream, mut node) = world.stream(brisk()).await;
    let before = Instant::now();
    stream.write_all(b"SSH-2.0-x\r\n").await.unwrap();
    let swallowing = async { while node.next_unacknowledged().await.is_some() {} };
    let (read, ()) = tokio::join!(patiently(stream.read_u8()), swallowing);
    let error = read.unwrap_err();
    assert_eq!(before.elapsed().as_secs(), 8);
    assert!(error.to_string().contains("port 22 of i-0123456789abcdef0"), "{error}");
    let _ = patiently(stream.handle().closed()).await;
    assert_eq!(world.service.calls().last().map(String::as_str), Some("terminate"));
}

#[tokio::test(start_paused = true)]
async fn a_port_to_which_nothing_was_written_may_be_silent() {
    let mut world = World::new();
    let (mut stream, mut node) = world.stream(brisk()).await;
    node.idle(Duration::from_mins(5)).await;
    stream.write_all(b"k").await.unwrap();
    assert_eq!(node.read(1).await, b"k");
}

#[tokio::test(start_paused = true)]
async fn a_port_that_took_something_once_may_take_its_time() {
    let mut world = World::new();
    let (mut stream, mut node) = world.stream(brisk()).await;
    stream.write_all(b"k").await.unwrap();
    assert_eq!(node.read(1).await, b"k");
    stream.write_all(b"l").await.unwrap();
    node.idle(Duration::from_mins(5)).await;
    assert_eq!(node.read(1).await, b"l");
}

#[tokio::test(start_paused = true)]
async fn a_port_that_speaks_is_there() {
    let mut world = World::new();
    let (mut stream, mut node) = world.stream(brisk()).await;
    stream.write_all(b"k").await.unwrap();
    node.print(b"hello").await;
    node.idle(Duration::from_mins(5)).await;
    let mut greeting = [0; 5];
    patiently(stream.read_exact(&mut greeting)).await.unwrap();
    assert_eq!(node.read(1).await, b"k");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_answers_no_more_is_told_of_and_given_up_after_ten_minutes() {
    let mut world = World::new();
    let (mut stream, mut node) = world.stream(brisk()).await;
    stream.write_all(b"k").await.unwrap();
    assert_eq!(node.read(1).await, b"k");
    node.idle(Duration::from_mins(4)).await;
    let (before, mut connection) = (Instant::now(), stream.handle().connection());
    stream.write_all(b"l").await.unwrap();
    let silent = async {
        connection.wait_for(|state| matches!(state, ConnectionState::Unanswered { .. })).await.unwrap();
        let told = before.elapsed().as_secs();
        (told, patiently(stream.read_u8()).await.unwrap_err())
    };
    let swallowing = async { while node.next_unacknowledged().await.is_some() {} };
    let ((told, error), ()) = tokio::join!(silent, swallowing);
    assert_eq!((told, before.elapsed().as_secs()), (10, 600));
    assert!(matches!(StreamError::from_io(&error), Some(StreamError::NodeSilent { .. })), "{error}");
    let _ = patiently(stream.handle().closed()).await;
    assert_eq!(world.service.calls().last().map(String::as_str), Some("terminate"));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_answers_again_is_connected_again() {
    let mut world = World::new();
    let (mut stream, mut node) = world.stream(brisk()).await;
    let mut connection = stream.handle().connection();
    stream.write_all(b"k").await.unwrap();
    assert_eq!(node.read(1).await, b"k");
    for _ in 0..3 {
        stream.write_all(b"k").await.unwrap();
        node.idle(Duration::from_mins(4)).await;
        assert!(matches!(*connection.borrow_and_update(), ConnectionState::Unanswered { .. }));
        assert_eq!(node.read(1).await, b"k");
        connection.wait_for(|state| *state == ConnectionState::Connected).await.unwrap();
    }
}

/// It never repeats an acknowledgement that was lost, so its silence tells nothing.
#[tokio::test(start_paused = true)]
async fn an_old_agent_may_be_silent_for_ever() {
    let mut world = World::new();
    let opening = world.open(brisk());
    let mut node = world.dial().await.accept().await;
    node.opened().await;
    let (stream, ()) = tokio::join!(patiently(opening), node.shake_hands_as("3.2.1040.0"));
    let mut stream = stream.unwrap();
    stream.write_all(b"k").await.unwrap();
    assert_eq!(node.read(1).await, b"k");
    stream.write_all(b"l").await.unwrap();
    node.idle(Duration::from_hours(1)).await;
    assert_eq!(*stream.handle().connection().borrow(), ConnectionState::Connected);
    assert_eq!(node.read(1).await, b"l");
}
