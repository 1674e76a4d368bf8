//! Every way to lose the connection, and what becomes of it, in virtual time.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::world::*;
use crate::stream::socket::ConnectError;
use crate::stream::*;

const MINUTE: Duration = Duration::from_mins(1);

/// The connection is back and the bytes flow.
async fn works(stream: &mut SsmStream, node: &mut Node) {
    stream.write_all(b"k").await.unwrap();
    assert_eq!(node.read(1).await, b"k");
    node.print(b"echo").await;
    let mut received = [0; 4];
    patiently(stream.read_exact(&mut received)).await.unwrap();
    assert_eq!(&received, b"echo");
}

fn unresolved() -> ConnectError {
    let source = std::io::Error::other("temporary failure in name resolution");
    DialError::Resolve { host: "ssmmessages.eu-west-1.amazonaws.com".into(), source }.into()
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_is_given_up_after_75_seconds_and_resumed() {
    let mut world = World::new();
    let (mut stream, mut node) = world.stream(brisk()).await;
    // The handshake was talk: what follows it is asked after at once, and answers.
    node.idle(Duration::from_secs(25)).await;
    let before = Instant::now();
    let dial = world.dial().await;
    let waited = before.elapsed().as_secs();
    assert!((55..=76).contains(&waited), "{waited} s");
    let mut node = node.hang_up().moves_to(dial.accept().await);
    node.opened().await;
    works(&mut stream, &mut node).await;
}

/// Whether the connection that says nothing more from now on is replaced soon, and told with the whole time of silence.
async fn is_soon_replaced(world: &mut World, stream: &SsmStream, node: Node) -> Node {
    let (mut states, silent) = (stream.handle().connection(), Instant::now());
    let dial = world.dial().await;
    let waited = silent.elapsed().as_secs();
    assert!((14..=21).contains(&waited), "{waited} s");
    let lost = patiently(states.wait_for(|state| matches!(state, ConnectionState::Reconnecting { .. }))).await;
    let ConnectionState::Reconnecting { since, until, .. } = lost.unwrap().clone() else { unreachable!() };
    assert!(since <= silent.into_std() + Duration::from_secs(1), "since it was heard last");
    assert_eq!(until, Instant::now().into_std() + 10 * MINUTE, "from when it was noticed");
    let mut node = node.hang_up().moves_to(dial.accept().await);
    node.opened().await;
    node
}

#[tokio::test(start_paused = true)]
async fn a_dead_connection_that_owes_an_answer_is_replaced_in_seconds() {
    let mut world = World::new();
    let (mut stream, mut node) = world.stream(StreamOptions::default()).await;
    works(&mut stream, &mut node).await;
    node.idle(20 * Duration::from_secs(1)).await;
    stream.write_all(b"typed").await.unwrap();
    let mut node = is_soon_replaced(&mut world, &stream, node).await;
    assert_eq!(node.read(5).await, b"typed");
    works(&mut stream, &mut node).await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_dies_in_the_middle_of_a_download_is_replaced_in_seconds() {
    let mut world = World::new();
    let (mut stream, mut node) = world.stream(StreamOptions::default()).await;
    works(&mut stream, &mut node).await;
    node.print(b"half of it").await;
    stream.read_exact(&mut [0; 10]).await.unwrap();
    let mut node = is_soon_replaced(&mut world, &stream, node).await;
    works(&mut stream, &mut node).await;
}

#[tokio::test(start_paused = true)]
async fn what_stands_in_the_way_of_a_resumption_is_told_at_once_and_it_goes_on_when_that_is_gone() {
    let mut world = World::new();
    let (mut stream, node) = world.stream(StreamOptions::default()).await;
    let mut states = stream.handle().connection();
    for _ in 0..40 {
        let expired = ServiceError::Expired("run `aws sso login`".into());
        world.service.resume_failures.lock().unwrap().push_back(expired);
    }
    let (agent, lost) = (node.hang_up(), Instant::now());
    let met = |state: &ConnectionState| matches!(state, ConnectionState::Reconnecting { obstacle: Some(_), .. });
    let told = patiently(states.wait_for(met)).await.unwrap().clone();
    assert!(lost.elapsed() < Duration::from_secs(1));
    let ConnectionState::Reconnecting { obstacle: Some(obstacle), .. } = told else { unreachable!() };
    assert!(matches!(obstacle.error(), StreamError::Service(ServiceError::Expired(_))), "{obstacle:?}");
    states.mark_unchanged();
    let mut node = agent.moves_to(world.dial().await.accept().await);
    assert!(lost.elapsed() > MINUTE);
    assert!(!states.has_changed().unwrap(), "the same obstacle is no news");
    node.opened().await;
    works(&mut stream, &mut node).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_vanishes_while_nothing_is_sent_ends_the_stream_within_its_limit() {
    for limit in [Duration::from_secs(15), 10 * MINUTE] {
        let mut world = World::new();
        let options = StreamOptions { node_timeout: limit, ..StreamOptions::default() };
        let (mut stream, mut node) = world.stream(options).await;
        works(&mut stream, &mut node).await;
        let vanished = Instant::now();
        // The service goes on answering pings.
        let swallowing = async { while node.next_unacknowledged().await.is_some() {} };
        let (error, ()) = tokio::join!(patiently(stream.read_u8()), swallowing);
        let error = error.unwrap_err();
        assert!(matches!(StreamError::from_io(&error), Some(StreamError::NodeSilent { .. })), "{error:?}");
        let waited = vanished.elapsed();
        assert!(waited <= limit + Duration::from_secs(1), "{waited:?} of {limit:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_there_is_asked_now_and_then_with_no_data() {
    let mut world = World::new();
    let (mut stream, mut node) = world.stream(StreamOptions::default()).await;
    works(&mut stream, &mut node).await;
    let start = Instant::now();
    for _ in 0..12 {
        let (payload_type, _) = node.receive().await;
        assert_eq!(payload_type, crate::wire::PayloadType::Size);
    }
    assert_eq!(start.elapsed().as_secs() / 60, 60, "every five minutes");
    works(&mut stream, &mut node).await;
    assert_eq!(world.service.calls(), ["start", "sign"]);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_acknowledges_once_only_is_not_asked() {
    let mut world = World::new();
    let opening = world.open(StreamOptions::default());
    let mut node = world.dial().await.accept().await;
    node.opened().await;
    let (stream, ()) = tokio::join!(patiently(opening), node.shake_hands_as("3.1.0.0"));
    let mut stream = stream.unwrap();
    node.idle(30 * MINUTE).await;
    assert_eq!(stream.handle().stats().in_flight, 0);
    works(&mut stream, &mut node).await;
}

#[tokio::test(start_paused = true)]
async fn waits_of_no_time_end_no_sound_session() {
    let mut world = World::new();
    let mut options = StreamOptions::default();
    (options.drain_timeout, options.port_timeout, options.node_timeout) = Default::default();
    options.channel.handshake_timeout = Duration::ZERO;
    let (mut stream, mut node) = world.stream(options).await;
    works(&mut stream, &mut node).await;
    stream.write_all(b"last words").await.unwrap();
    let (shut, ()) = patiently(async {
        tokio::join!(stream.shutdown(), async {
            // A slow path.
            tokio::time::sleep(Duration::from_millis(400)).await;
            assert_eq!(node.read(10).await, b"last words");
            node.terminated().await;
        })
    })
    .await;
    shut.unwrap();
}

#[tokio::test(start_paused = true)]
async fn no_time_to_resume_ends_the_stream_with_the_connection() {
    let mut world = World::new();
    let options = StreamOptions { resume_timeout: Duration::ZERO, ..StreamOptions::default() };
    let (mut stream, node) = world.stream(options).await;
    node.say_bye().await;
    let error = patiently(stream.read_u8()).await.unwrap_err();
    assert!(matches!(StreamError::from_io(&error), Some(StreamError::Lost { .. })), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_only_answers_pings_lives() {
    let mut world = World::new();
    let options = StreamOptions { node_timeout: Duration::MAX, ..brisk() };
    let (mut stream, mut node) = world.stream(options).await;
    node.idle(10 * MINUTE).await;
    assert_eq!(*stream.handle().connection().borrow(), ConnectionState::Connected);
    works(&mut stream, &mut node).await;
    assert_eq!(world.service.calls(), ["start", "sign"]);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_takes_nothing_for_ten_minutes_does_not_cost_the_connection() {
    let mut world = World::new();
    let mut options = StreamOptions::default();
    options.channel.max_inbox = 1 << 20;
    let (mut stream, mut node) = world.stream(options).await;
    // With 128 bytes beside each KiB.
    let data = pattern(911 << 10);
    node.print(&data).await;
    until(|| stream.shared.lock().channel.is_inbox_full()).await;
    let pings = node.idle(10 * MINUTE).await;
    assert!(pings >= 18, "{pings} pings");
    let mut received = vec![0; data.len()];
    patiently(stream.read_exact(&mut received)).await.unwrap();
    assert!(received == data);
    works(&mut stream, &mut node).await;
    assert_eq!(world.service.calls(), ["start", "sign"]);
}

#[tokio::test(start_paused = true)]
async fn names_that_cannot_be_resolved_for_minutes_are_waited_for() {
    let mut world = World::new();
    let (mut stream, node) = world.stream(brisk()).await;
    let (node, lost) = (node.hang_up(), Instant::now());
    let mut tries = 0;
    let dial = loop {
        let dial = world.dial().await;
        if lost.elapsed() > 9 * MINUTE {
            break dial;
        }
        tries += 1;
        dial.refuse(unresolved());
    };
    assert!(tries > 100, "{tries} tries: none is later than 5 s");
    let mut node = node.moves_to(dial.accept().await);
    node.opened().await;
    works(&mut stream, &mut node).await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_does_not_come_back_is_given_up_after_ten_minutes() {
    let mut world = World::new();
    let (mut stream, node) = world.stream(brisk()).await;
    let (handle, lost) = (stream.handle(), Instant::now());
    node.hang_up();
    let refusing = async {
        loop {
            world.dial().await.refuse(unresolved());
        }
    };
    let error = tokio::select! {
        error = stream.read_u8() => error.unwrap_err(),
        () = refusing => unreachable!(),
    };
    let waited = lost.elapsed().as_secs();
    assert!((600..=601).contains(&waited), "{waited} s");
    let Some(StreamError::Lost { source, .. }) = StreamError::from_io(&error) else { panic!("{error:?}") };
    assert!(matches!(**source, StreamError::Connect { .. }), "{source:?}");
    let _ = patiently(handle.closed()).await;
    assert_eq!(*handle.connection().borrow(), ConnectionState::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_gone_ends_at_once_with_its_reason() {
    let mut world = World::new();
    let (mut stream, node) = world.stream(brisk()).await;
    let message = "it has timed out or was terminated".to_owned();
    let gone = ServiceError::SessionEnded { session: SessionId("jo-0a1".into()), message };
    world.service.resume_failures.lock().unwrap().push_back(gone);
    let lost = Instant::now();
    node.hang_up();
    let error = patiently(stream.read_u8()).await.unwrap_err();
    assert!(error.to_string().contains("timed out or was terminated"), "{error}");
    assert_eq!(lost.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn expired_credentials_and_refused_upgrades_are_waited_for() {
    let mut world = World::new();
    let (mut stream, node) = world.stream(brisk()).await;
    for _ in 0..30 {
        let expired = ServiceError::Expired("run `aws sso login`".into());
        world.service.resume_failures.lock().unwrap().push_back(expired);
    }
    let node = node.hang_up();
    world.dial().await.refuse(ConnectError::Denied("the security token has expired".into(), None));
    let mut node = node.moves_to(world.dial().await.accept().await);
    node.opened().await;
    works(&mut stream, &mut node).await;
}

#[tokio::test(start_paused = true)]
async fn every_dial_is_signed_anew() {
    let mut world = World::new();
    let opening = world.open(brisk());
    let dial = world.dial().await;
    let mut signatures = vec![dial.signature().to_owned()];
    let mut node = dial.accept().await;
    node.opened().await;
    let (stream, ()) = tokio::join!(patiently(opening), node.shake_hands());
    let _stream = stream.unwrap();
    let mut agent = node.hang_up();
    for _ in 0..3 {
        world.dial().await.refuse(ConnectError::Refused(503));
        let dial = world.dial().await;
        signatures.push(dial.signature().to_owned());
        agent = agent.moves_to(dial.accept().await).hang_up();
    }
    assert_eq!(signatures, ["1", "3", "5", "7"]);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_takes_connections_only_to_cut_them_prolongs_the_outage() {
    let mut world = World::new();
    let (mut stream, node) = world.stream(brisk()).await;
    let (mut states, lost) = (stream.handle().connection(), Instant::now());
    let mut agent = node.hang_up();
    let mut waits = Vec::new();
    for _ in 0..8 {
        let before = Instant::now();
        let mut node = agent.moves_to(world.dial().await.accept().await);
        waits.push(before.elapsed());
        node.opened().await;
        agent = node.hang_up();
    }
    assert!(waits[0].is_zero() && waits[1] >= Duration::from_millis(50), "{waits:?}");
    assert!(waits[7] >= Duration::from_secs(2), "{waits:?}");
    let seen = patiently(states.wait_for(|state| matches!(state, ConnectionState::Reconnecting { .. }))).await;
    let ConnectionState::Reconnecting { since, until, .. } = seen.unwrap().clone() else { panic!("connected") };
    assert_eq!((since, until), (lost.into_std(), (lost + 10 * MINUTE).into_std()));
    let mut node = agent.moves_to(world.dial().await.accept().await);
    node.opened().await;
    works(&mut stream, &mut node).await;
}

#[tokio::test(start_paused = true)]
async fn each_cut_of_a_connection_that_has_carried_something_has_its_own_ten_minutes() {
    let mut world = World::new();
    let (mut stream, mut node) = world.stream(brisk()).await;
    for _ in 0..30 {
        let (agent, cut) = (node.say_bye().await, Instant::now());
        world.dial().await.refuse(unresolved());
        node = agent.moves_to(world.dial().await.accept().await);
        assert!(cut.elapsed() < Duration::from_secs(1), "the delays begin anew");
        node.opened().await;
        works(&mut stream, &mut node).await;
        node.idle(MINUTE).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_hangs_while_it_is_resumed_does_not_hold_the_stream_up_for_ever() {
    let mut world = World::new();
    let (mut stream, node) = world.stream(brisk()).await;
    let lost = Instant::now();
    node.hang_up();
    let _unanswered = world.dial().await;
    let error = patiently(stream.read_u8()).await.unwrap_err();
    assert!(matches!(StreamError::from_io(&error), Some(StreamError::Lost { .. })), "{error:?}");
    assert_eq!(lost.elapsed().as_secs(), 600);
}

#[tokio::test(start_paused = true)]
async fn a_presigned_url_is_replaced_by_the_one_of_the_resumption() {
    let mut world = World::new();
    let presigned = format!("{URL}&X-Amz-Signature=00ff");
    *world.service.stream_url.lock().unwrap() = Some(presigned.clone());
    let (_stream, node) = world.stream(brisk()).await;
    let again = format!("{URL}&X-Amz-Signature=11ee");
    *world.service.stream_url.lock().unwrap() = Some(again.clone());
    node.hang_up();
    assert_eq!(world.dial().await.url, again);
}

#[tokio::test(start_paused = true)]
async fn waits_may_be_asked_for_that_never_end() {
    let mut world = World::new();
    let for_ever = Duration::MAX;
    let mut options = StreamOptions::default();
    (options.resume_timeout, options.drain_timeout) = (for_ever, for_ever);
    (options.port_timeout, options.node_timeout) = (for_ever, for_ever);
    options.channel.handshake_timeout = for_ever;
    let (mut stream, mut node) = world.stream(options).await;
    works(&mut stream, &mut node).await;
    let agent = node.hang_up();
    for _ in 0..500 {
        world.dial().await.refuse(unresolved());
    }
    let mut node = agent.moves_to(world.dial().await.accept().await);
    node.opened().await;
    works(&mut stream, &mut node).await;
}
