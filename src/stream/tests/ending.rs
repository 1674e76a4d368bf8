//! Every way for a stream to end: what readers and writers are told, and that the session never stays behind.

use std::io::ErrorKind;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::world::*;
use crate::stream::*;
use crate::wire::PayloadType;

#[tokio::test(start_paused = true)]
async fn the_far_ends_close_is_an_end_of_file_after_all_its_bytes() {
    let mut world = World::new();
    let (mut stream, mut node) = world.stream(brisk()).await;
    let data = pattern(10_000);
    node.print(&data).await;
    node.close_channel("").await;
    patiently(stream.handle().closed()).await.unwrap();

    let mut received = Vec::new();
    stream.read_to_end(&mut received).await.unwrap();
    assert!(received == data);
    assert_eq!(stream.write(b"x").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
    stream.shutdown().await.unwrap();
    assert_eq!(world.service.calls(), ["start", "sign"], "what has ended is not terminated");
}

#[tokio::test(start_paused = true)]
async fn the_services_reason_is_an_error_after_all_bytes() {
    let mut world = World::new();
    let (mut stream, mut node) = world.stream(brisk()).await;
    node.print(b"last words").await;
    node.close_channel("Session timed out because of inactivity").await;

    let mut received = Vec::new();
    let error = patiently(stream.read_to_end(&mut received)).await.unwrap_err();
    assert_eq!(received, b"last words");
    let Some(StreamError::Ended(text)) = StreamError::from_io(&error) else { panic!("{error:?}") };
    assert_eq!(text, "Session timed out because of inactivity");
    assert_eq!(stream.write(b"x").await.unwrap_err().kind(), ErrorKind::ConnectionAborted);
    assert!(matches!(patiently(stream.handle().closed()).await, Err(StreamError::Ended(_))));
}

#[tokio::test(start_paused = true)]
async fn an_end_with_a_gap_before_it_is_no_end_of_file() {
    let mut world = World::new();
    let (mut stream, mut node) = world.stream(brisk()).await;
    node.print(b"first").await;
    node.skip();
    node.print(b"third").await;
    node.close_channel("").await;
    let mut received = Vec::new();
    let error = patiently(stream.read_to_end(&mut received)).await.unwrap_err();
    assert!(matches!(StreamError::from_io(&error), Some(StreamError::Incomplete)), "{error:?}");
    assert_eq!(received, b"first");
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_delivers_everything_before_it_ends_the_session() {
    let mut world = World::new();
    let (mut stream, mut node) = world.stream(brisk()).await;
    let data = pattern(20_000);
    stream.write_all(&data).await.unwrap();
    let (shut, arrived) = patiently(async {
        tokio::join!(stream.shutdown(), async {
            let arrived = node.read(data.len()).await;
            node.terminated().await;
            arrived
        })
    })
    .await;
    shut.unwrap();
    assert!(arrived == data);
    assert_eq!(world.service.calls(), ["start", "sign"], "the flag was confirmed, so the API is not asked");
    assert_eq!(stream.write(b"x").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
    assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_whose_flag_is_not_confirmed_falls_back_to_the_api() {
    let mut world = World::new();
    let (mut stream, mut node) = world.stream(brisk()).await;
    stream.write_all(b"data").await.unwrap();
    assert_eq!(node.read(4).await, b"data");
    let silent = async {
        while let Some(message) = node.next_unacknowledged().await {
            assert!(matches!(message.payload_type, PayloadType::Flag | PayloadType::Output));
        }
    };
    let (shut, ()) = patiently(async { tokio::join!(stream.shutdown(), silent) }).await;
    shut.unwrap();
    assert_eq!(world.service.calls(), ["start", "sign", "terminate"]);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_is_an_error_when_the_node_did_not_confirm_what_was_written() {
    let mut world = World::new();
    let (mut stream, mut node) = world.stream(brisk()).await;
    stream.write_all(b"data").await.unwrap();
    let silent = async { while node.next_unacknowledged().await.is_some() {} };
    let (shut, ()) = patiently(async { tokio::join!(stream.shutdown(), silent) }).await;
    let error = shut.unwrap_err();
    assert!(matches!(StreamError::from_io(&error), Some(StreamError::Unconfirmed)), "{error:?}");
    assert_eq!(world.service.calls(), ["start", "sign", "terminate"]);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_stream_delivers_and_ends_the_session_in_the_background() {
    let mut world = World::new();
    let (mut stream, mut node) = world.stream(brisk()).await;
    let handle = stream.handle();
    stream.write_all(b"goodbye").await.unwrap();
    drop(stream);
    node.print(b"nobody reads this").await;
    assert_eq!(node.read(7).await, b"goodbye");
    node.terminated().await;
    patiently(handle.closed()).await.unwrap();
    patiently(handle.closed()).await.unwrap();
    assert_eq!(world.service.calls(), ["start", "sign"]);
    assert_eq!(*handle.connection().borrow(), ConnectionState::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_stream_without_an_answer_is_terminated_through_the_api() {
    let mut world = World::new();
    let (stream, _node) = world.stream(brisk()).await;
    let handle = stream.handle();
    drop(stream);
    let _ = patiently(handle.closed()).await;
    assert_eq!(world.service.calls(), ["start", "sign", "terminate"]);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_could_not_be_terminated_is_named() {
    let mut world = World::new();
    let failure = ServiceError::Throttled { operation: "TerminateSession", message: "slow down".into() };
    *world.service.terminate_failure.lock().unwrap() = Some(failure);
    let (mut stream, _node) = world.stream(brisk()).await;
    let error = patiently(stream.shutdown()).await.unwrap_err();
    let Some(StreamError::NotTerminated { session, .. }) = StreamError::from_io(&error) else { panic!("{error:?}") };
    assert_eq!(session.0, "jo-0a1");
}

#[tokio::test(start_paused = true)]
async fn terminate_ends_a_stream_under_its_reader() {
    let mut world = World::new();
    let (mut stream, _node) = world.stream(StreamOptions::default()).await;
    let handle = stream.handle();
    let reading = tokio::spawn(async move { stream.read(&mut [0; 8]).await });
    handle.terminate();
    let error = patiently(reading).await.unwrap().unwrap_err();
    assert!(matches!(StreamError::from_io(&error), Some(StreamError::Terminated)), "{error:?}");
    assert!(matches!(patiently(handle.closed()).await, Err(StreamError::Terminated)));
    assert_eq!(world.service.calls(), ["start", "sign", "terminate"]);
}

/// A control plane with a fault.
struct Faulty;

impl SsmService for Faulty {
    fn start<'a>(&'a self, _: &'a StartRequest) -> BoxFuture<'a, Result<Grant, ServiceError>> {
        panic!("for the test")
    }

    fn resume<'a>(&'a self, _: &'a SessionId) -> BoxFuture<'a, Result<Grant, ServiceError>> {
        unreachable!("it never started")
    }

    fn terminate<'a>(&'a self, _: &'a SessionId) -> BoxFuture<'a, Result<(), ServiceError>> {
        unreachable!("it never started")
    }

    fn sign_upgrade<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<UpgradeHeaders, ServiceError>> {
        unreachable!("it never started")
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_the_streams_task_is_told_as_one() {
    let request = StartRequest::new(TargetId::new("i-0123456789abcdef0").unwrap(), SSH_PORT);
    let error = patiently(open(Arc::new(Faulty), request, StreamOptions::default())).await.unwrap_err();
    assert!(matches!(error, StreamError::Panicked), "{error:?}");
}

#[test]
fn a_stream_whose_runtime_is_gone_says_so() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (mut stream, node) = runtime.block_on(async { World::new().stream(StreamOptions::default()).await });
    drop(runtime);
    drop(node);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let error = runtime.block_on(patiently(stream.read(&mut [0; 8]))).unwrap_err();
    assert!(matches!(StreamError::from_io(&error), Some(StreamError::RuntimeGone)), "{error:?}");
}
