//! How a channel ends.

use super::*;
use crate::wire::Flag;

#[test]
fn the_flag_follows_everything_written_and_its_acknowledgement_finishes() {
    let mut bench = Bench::open(Config::default());
    bench.write(b"last words");
    bench.channel.finish(bench.now);
    assert_eq!(bench.write(b"more"), 0);
    let sent = bench.drain();
    assert_eq!(sent[0].payload, "last words");
    assert_eq!((sent[1].sequence, sent[1].payload_type), (2, PayloadType::Flag));
    assert_eq!(Flag::decode(&sent[1].payload), Some(Flag::TerminateSession));
    bench.ack(2);
    assert_eq!(bench.events(), []);
    bench.ack(1);
    assert_eq!(bench.events(), [Event::Finished]);
    bench.channel.finish(bench.now);
    assert_eq!(bench.drain(), []);
}

#[test]
fn an_unfinished_handshake_holds_the_flag_back() {
    let mut bench = Bench::connected();
    bench.stream(0, PayloadType::HandshakeRequest, REQUEST.as_bytes());
    bench.drain();
    bench.channel.finish(bench.now);
    assert_eq!(bench.drain(), []);
    bench.ack(0);
    bench.stream(1, PayloadType::HandshakeComplete, b"{}");
    assert_eq!(bench.run(30 * MS), [1]);
}

#[test]
fn bytes_still_arrive_after_the_flag() {
    let mut bench = Bench::open(Config::default());
    bench.channel.finish(bench.now);
    bench.drain();
    bench.output(3, b"tail");
    assert_eq!(bench.read(), b"tail");
}

#[test]
fn the_end_of_the_session_is_reported_after_its_last_bytes() {
    let mut bench = Bench::open(Config::default());
    bench.output(3, b"bye");
    bench.close(&Bench::closed_with(""));
    assert_eq!(bench.events(), [Event::Readable, Event::Closed(CloseReason::Ended)]);
    assert_eq!(bench.read(), b"bye");
    assert!(bench.channel.is_closed());
}

#[test]
fn the_services_text_comes_with_the_end() {
    let mut bench = Bench::open(Config::default());
    bench.close(&Bench::closed_with("Session timed out"));
    assert_eq!(bench.events(), [Event::Closed(CloseReason::ByService("Session timed out".into()))]);
}

#[test]
fn a_notice_of_the_end_counts_even_when_it_cannot_be_read() {
    let mut bench = Bench::open(Config::default());
    bench.close(b"{\"Output\":");
    assert_eq!(bench.events(), [Event::Closed(CloseReason::Ended)]);
    assert_eq!(bench.channel.stats().malformed, 1);
}

#[test]
fn an_end_with_messages_missing_is_not_a_clean_one() {
    let mut bench = Bench::open(Config::default());
    bench.output(4, b"after the gap");
    bench.close(&Bench::closed_with(""));
    assert_eq!(bench.events(), [Event::Closed(CloseReason::Incomplete)]);
}

#[test]
fn the_end_may_be_the_first_thing_to_arrive() {
    let mut bench = Bench::connected();
    bench.close(&Bench::closed_with("no"));
    assert_eq!(bench.events(), [Event::Closed(CloseReason::ByService("no".into()))]);
}

#[test]
fn after_the_end_nothing_happens() {
    let mut bench = Bench::open(Config::default());
    bench.write(b"unacknowledged");
    bench.close(&Bench::closed_with(""));
    bench.events();
    bench.output(3, b"late");
    bench.channel.handle_disconnected(bench.now);
    bench.channel.handle_connected("token", bench.now);
    bench.channel.finish(bench.now);
    assert_eq!(bench.channel.poll_transmit(bench.now), None);
    assert_eq!(bench.channel.poll_timeout(), None);
    assert_eq!((bench.write(b"x"), bench.read(), bench.events()), (0, vec![], vec![]));
}
