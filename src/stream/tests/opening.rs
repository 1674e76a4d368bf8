//! The way in: what fails is told, what is given up leaves nothing behind.

use std::io;

use tokio::sync::Notify;

use super::world::*;
use crate::stream::socket::ConnectError;
use crate::stream::*;

fn unreachable() -> ServiceError {
    ServiceError::Unreachable { operation: "StartSession", message: "no route".into() }
}

async fn failure(opening: Opening) -> StreamError {
    patiently(opening).await.unwrap_err()
}

#[tokio::test(start_paused = true)]
async fn a_session_that_cannot_be_started_needs_no_end() {
    let world = World::new();
    *world.service.start_failure.lock().unwrap() = Some(unreachable());
    let error = failure(world.open(brisk())).await;
    assert!(matches!(error, StreamError::Service(ServiceError::Unreachable { .. })), "{error:?}");
    assert_eq!(world.service.calls(), ["start"]);
}

#[tokio::test(start_paused = true)]
async fn a_url_that_is_not_the_services_own_is_never_connected_to() {
    let mut world = World::new();
    *world.service.stream_url.lock().unwrap() = Some("wss://example.com/v1/data-channel/jo-0a1?x=y".into());
    let error = failure(world.open(brisk())).await;
    assert!(matches!(error, StreamError::Url(UrlError::Host { .. })), "{error:?}");
    assert_eq!(world.service.calls(), ["start", "terminate"]);
    assert!(futures_util::FutureExt::now_or_never(world.dial()).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_fails_in_passing_is_tried_again_with_the_same_token() {
    let mut world = World::new();
    let opening = world.open(brisk());
    world.dial().await.refuse(io::Error::from(io::ErrorKind::ConnectionRefused).into());
    world.dial().await.refuse(ConnectError::Refused(503));
    let mut node = world.dial().await.accept().await;
    assert_eq!(node.opened().await.token_value, TOKEN);
    let (stream, ()) = tokio::join!(patiently(opening), node.shake_hands());
    stream.unwrap();
    assert_eq!(world.service.calls(), ["start", "sign", "sign", "sign"], "each try is signed anew");
}

#[tokio::test(start_paused = true)]
async fn a_denied_upgrade_is_not_tried_again_and_names_what_is_missing() {
    let mut world = World::new();
    let opening = world.open(brisk());
    world.dial().await.refuse(ConnectError::Denied("not authorized".into(), None));
    let StreamError::UpgradeDenied(denied) = failure(opening).await else { panic!("not denied") };
    assert_eq!((denied.action, denied.message.as_str()), ("ssmmessages:OpenDataChannel", "not authorized"));
    assert_eq!(world.service.calls(), ["start", "sign", "terminate"]);
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_that_is_refused_over_a_wrong_clock_is_signed_once_more_with_the_services_time() {
    let mut world = World::new();
    world.service.is_clock_wrong.store(true, std::sync::atomic::Ordering::Relaxed);
    let opening = world.open(brisk());
    let refused = || ConnectError::Denied("Signature expired".into(), Some(std::time::SystemTime::UNIX_EPOCH));
    world.dial().await.refuse(refused());
    world.dial().await.refuse(refused());
    assert!(matches!(failure(opening).await, StreamError::UpgradeDenied(_)));
    assert_eq!(world.service.calls(), ["start", "sign", "sign", "terminate"]);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_ends_before_the_handshake_is_told_with_its_reason() {
    for (text, expected) in [("Unable to connect to specified port", true), ("", false)] {
        let mut world = World::new();
        let opening = world.open(brisk());
        let mut node = world.dial().await.accept().await;
        node.opened().await;
        node.close_channel(text).await;
        match failure(opening).await {
            StreamError::Ended(told) => assert!(expected && told == text),
            StreamError::EndedEarly => assert!(!expected),
            other => panic!("{other:?}"),
        }
        assert_eq!(world.service.calls(), ["start", "sign"], "what has ended is not terminated");
    }
}

#[tokio::test(start_paused = true)]
async fn an_opening_given_up_during_start_session_is_terminated_when_its_answer_comes() {
    let world = World::new();
    let gate = std::sync::Arc::new(Notify::new());
    *world.service.start_gate.lock().unwrap() = Some(std::sync::Arc::clone(&gate));
    let opening = world.open(brisk());
    let handle = opening.handle();
    until(|| world.service.calls() == ["start"]).await;
    drop(opening);
    gate.notify_one();
    assert!(matches!(patiently(handle.closed()).await, Err(StreamError::Terminated)));
    assert_eq!(world.service.calls().last().map(String::as_str), Some("terminate"));
}

#[tokio::test(start_paused = true)]
async fn an_opening_given_up_while_it_connects_is_terminated() {
    let mut world = World::new();
    let opening = world.open(brisk());
    let handle = opening.handle();
    let _unanswered = world.dial().await;
    drop(opening);
    assert!(matches!(patiently(handle.closed()).await, Err(StreamError::Terminated)));
    assert_eq!(world.service.calls(), ["start", "sign", "terminate"]);
}

#[tokio::test(start_paused = true)]
async fn an_opening_given_up_during_the_handshake_is_terminated() {
    let mut world = World::new();
    let opening = world.open(brisk());
    let handle = opening.handle();
    let mut node = world.dial().await.accept().await;
    node.opened().await;
    drop(opening);
    assert!(matches!(patiently(handle.closed()).await, Err(StreamError::Terminated)));
    assert_eq!(world.service.calls(), ["start", "sign", "terminate"]);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_cannot_be_terminated_is_told_with_the_first_fault() {
    let mut world = World::new();
    *world.service.terminate_failure.lock().unwrap() = Some(unreachable());
    let opening = world.open(brisk());
    world.dial().await.refuse(ConnectError::Refused(400));
    assert!(matches!(failure(opening).await, StreamError::UpgradeRefused { status: 400, .. }));
}
