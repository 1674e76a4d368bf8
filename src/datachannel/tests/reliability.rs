//! Numbers, acknowledgements, windows.

use std::num::NonZeroU32;

use super::*;

const KIB: usize = 1 << 10;
/// Bytes of the handshake's response.
const RESPONSE: u64 = 147;

fn small_window() -> Config {
    Config { max_payload: KIB, max_in_flight: 4 * KIB, ..Config::default() }
}

fn unpaced() -> Config {
    Config { max_frames_per_second: None, ..Config::default() }
}

#[test]
fn small_writes_leave_at_once_each_with_its_own_number() {
    let mut bench = Bench::open(Config::default());
    bench.write(b"a");
    assert_eq!(bench.data_sent(), [1]);
    bench.write(b"b");
    assert_eq!(bench.data_sent(), [2]);
}

#[test]
fn writes_that_were_not_drained_share_a_message() {
    let mut bench = Bench::open(Config::default());
    bench.write(b"a");
    bench.write(b"b");
    let sent = bench.drain();
    assert_eq!((sent.len(), &sent[0].payload[..]), (1, b"ab".as_slice()));
}

#[test]
fn a_lone_line_feed_is_sent_as_it_is() {
    let mut bench = Bench::open(Config::default());
    bench.write(b"\n");
    assert_eq!(bench.drain()[0].payload, "\n");
}

#[test]
fn a_full_window_blocks_the_writer_until_a_message_fits_again() {
    let mut bench = Bench::open(small_window());
    assert_eq!(bench.write(&[7; 6 * KIB]), 4 * KIB);
    assert_eq!(bench.write(&[7; KIB]), 0);
    assert!(!bench.channel.is_writable());
    assert_eq!(bench.data_sent(), [1, 2, 3, 4]);
    assert_eq!(bench.events(), []);
    bench.ack(2);
    assert_eq!(bench.events(), [Event::Writable]);
    assert_eq!(bench.write(&[7; 2 * KIB]), KIB);
    assert_eq!(bench.channel.stats().in_flight, 3 * KIB);
}

#[test]
fn a_sliver_of_the_window_is_not_filled_with_part_of_a_message() {
    let mut bench = Bench::open(small_window());
    assert_eq!(bench.write(&[7; 4 * KIB - 10]), 4 * KIB - 10);
    assert_eq!(bench.write(&[7; 11]), 0);
    assert_eq!(bench.write(&[7; 10]), 10);
}

#[test]
fn the_number_of_messages_in_flight_is_bounded_too() {
    let mut bench = Bench::open(unpaced());
    let mut written = 0;
    while bench.write(b"x") == 1 {
        written += bench.data_sent().len();
    }
    assert_eq!(written, config::MAX_MESSAGES_IN_FLIGHT);
    // Acknowledged ones behind the oldest are still the agent's to keep.
    bench.ack(5);
    assert_eq!(bench.write(b"x"), 0);
    bench.ack(1);
    assert_eq!(bench.write(b"x"), 1);
}

#[test]
fn writes_wait_for_a_websocket_within_the_window() {
    let mut bench = Bench::open(small_window());
    bench.channel.handle_disconnected(bench.now);
    assert_eq!(bench.write(&[7; 5 * KIB]), 4 * KIB);
    assert_eq!(bench.frames().len(), 0);
    bench.connect();
    assert_eq!(bench.data_sent(), [1, 2, 3, 4]);
}

#[test]
fn a_message_is_sent_again_byte_for_byte() {
    let mut bench = Bench::open(Config::default());
    bench.write(b"once");
    let first = bench.frames();
    bench.pass(Duration::from_secs(5));
    bench.channel.handle_timeout(bench.now).unwrap();
    assert_eq!(bench.frames(), first);
}

#[test]
fn the_first_data_is_resent_after_30_ms_doubling_because_the_agent_may_not_be_ready() {
    let mut bench = Bench::open(Config::default());
    bench.write(b"hello");
    assert_eq!(bench.run(29 * MS), [1]);
    assert_eq!(bench.run(MS), [1]);
    assert_eq!(bench.run(59 * MS), NOTHING);
    assert_eq!(bench.run(MS), [1]);
    assert_eq!(bench.run(120 * MS), [1]);
}

#[test]
fn nothing_acknowledged_is_sent_again() {
    let mut bench = Bench::open(Config::default());
    bench.write(b"a");
    bench.drain();
    bench.ack(1);
    assert_eq!(bench.run(Duration::from_mins(1)), NOTHING);
    assert_eq!(bench.channel.poll_timeout(), None);
    bench.channel.handle_disconnected(bench.now);
    bench.connect();
    assert_eq!(bench.data_sent(), NOTHING);
}

#[test]
fn after_a_reconnect_all_that_is_unacknowledged_is_resent_in_order_before_anything_new() {
    let mut bench = Bench::open(Config::default());
    for _ in 0..4 {
        bench.write(b"x");
        bench.drain();
    }
    bench.ack(2);
    bench.output(3, b"unacknowledged when the socket broke");
    bench.channel.handle_disconnected(bench.now);
    bench.write(b"new");
    bench.run(Duration::from_secs(9));
    bench.connect();
    let sent = bench.drain().into_iter().skip_while(|message| message.kind == MessageKind::Acknowledge);
    assert_eq!(sent.map(|message| message.sequence).collect::<Vec<_>>(), [1, 3, 4, 5]);
}

#[test]
fn after_a_reconnect_what_was_acknowledged_last_is_acknowledged_again() {
    let mut bench = Bench::open(Config::default());
    bench.output(3, b"a");
    assert_eq!(bench.acks_sent(), [3]);
    bench.output(4, b"b");
    bench.channel.handle_disconnected(bench.now);
    bench.connect();
    assert_eq!(bench.acks_sent(), [0, 1, 2, 3, 4]);
    assert_eq!(bench.channel.stats().acks_repeated, 4);
}

#[test]
fn frames_beyond_the_burst_leave_at_the_rate_and_merge_meanwhile() {
    let config = Config { max_frames_per_second: NonZeroU32::new(100), burst: 12, ..Config::default() };
    let mut bench = Bench::open(config);
    bench.run(Duration::from_secs(1));
    for _ in 0..20 {
        bench.write(b"xy");
        bench.drain();
    }
    assert_eq!(bench.channel.stats().bytes_sent, 2 * 9 + RESPONSE);
    assert_eq!(bench.channel.poll_timeout(), Some(bench.now + 10 * MS));
    assert_eq!(bench.run(9 * MS), NOTHING);
    assert_eq!(bench.run(MS), [10]);
    assert_eq!(bench.channel.stats().bytes_sent, 2 * 20 + RESPONSE);
}

#[test]
fn an_acknowledgement_leaves_at_once_while_an_upload_waits_for_its_turn() {
    let mut bench = Bench::open(Config { max_payload: KIB, burst: 40, ..Config::default() });
    bench.run(Duration::from_secs(1));
    bench.write(&vec![7; 100 * KIB]);
    assert_eq!(bench.data_sent().len(), 30);
    bench.output(3, b"now");
    assert_eq!(bench.acks_sent(), [3]);
}

#[test]
fn a_new_websocket_does_not_fill_the_bucket() {
    let mut bench = Bench::open(Config { burst: 1, ..Config::default() });
    bench.channel.handle_disconnected(bench.now);
    bench.channel.handle_connected("token", bench.now);
    assert_eq!(bench.channel.poll_transmit(bench.now), None);
    bench.now = bench.channel.poll_timeout().unwrap();
    assert!(matches!(bench.channel.poll_transmit(bench.now), Some(Transmit::Text(_))));
}

#[test]
fn an_acknowledgement_of_nothing_changes_nothing() {
    let mut bench = Bench::open(Config::default());
    bench.write(b"x");
    bench.drain();
    for sequence in [0, 2, 77, -1, i64::MAX, i64::MIN] {
        bench.ack(sequence);
    }
    assert_eq!((bench.channel.stats().acks_ignored, bench.channel.stats().in_flight), (6, 1));
    bench.receive(MessageKind::Acknowledge, 0, PayloadType::NONE, b"[]");
    assert_eq!(bench.channel.stats().malformed, 1);
}

#[test]
fn an_acknowledgement_may_come_at_the_moment_of_sending() {
    let mut bench = Bench::open(Config::default());
    bench.write(b"x");
    assert!(bench.channel.poll_transmit(bench.now).is_some());
    bench.ack(1);
    assert_eq!(bench.run(Duration::from_secs(9)), NOTHING);
}

#[test]
fn an_acknowledgement_counts_by_its_number_whatever_type_and_id_it_names() {
    let mut bench = Bench::open(Config::default());
    bench.write(b"x");
    bench.drain();
    let body = br#"{"AcknowledgedMessageType":"?","AcknowledgedMessageId":7,"AcknowledgedMessageSequenceNumber":1}"#;
    bench.receive(MessageKind::Acknowledge, 99, PayloadType::NONE, body);
    assert_eq!(bench.channel.stats().in_flight, 0);
}

#[test]
fn messages_are_acknowledged_before_anybody_reads_and_again_when_they_repeat() {
    let mut bench = Bench::open(Config::default());
    bench.output(4, b"b");
    bench.output(3, b"a");
    bench.output(4, b"b");
    bench.output(2, b"banner again");
    assert_eq!(bench.acks_sent(), [4, 3, 4, 2]);
    assert_eq!(bench.read(), b"ab");
    let stats = bench.channel.stats();
    assert_eq!((stats.messages_reordered, stats.messages_repeated), (1, 2));
}

#[test]
fn an_acknowledgement_echoes_type_and_id_and_carries_the_plugins_flags() {
    let mut bench = Bench::open(Config::default());
    bench.output(3, b"a");
    let ack = bench.drain().remove(0);
    assert_eq!((ack.sequence, ack.flags, ack.payload_type), (0, 3, PayloadType::NONE));
    let body = Acknowledge::from_json(&ack.payload).unwrap();
    assert_eq!((body.message_type.as_str(), body.message_id), ("output_stream_data", Uuid::from_u128(3)));
}

#[test]
fn a_message_with_a_wrong_digest_is_dropped_without_acknowledgement() {
    let mut bench = Bench::open(Config::default());
    bench.output(3, b"good");
    bench.drain();
    let good = Message {
        kind: MessageKind::OutputStreamData,
        created_millis: 1,
        sequence: 4,
        flags: 0,
        id: Uuid::nil(),
        payload_type: PayloadType::Output,
        payload: Bytes::from_static(b"bent"),
    };
    let bent = Frame { digest: [0; 32], ..Frame::new(good.clone()) };
    bench.channel.handle_frame(bent.encode(), bench.now).unwrap();
    assert_eq!(bench.acks_sent(), NOTHING);
    bench.channel.handle_frame(good.encode(), bench.now).unwrap();
    assert_eq!(bench.acks_sent(), [4]);
    assert_eq!(bench.read(), b"goodbent");
    assert_eq!(bench.channel.stats().digests_wrong, 1);
}

#[test]
fn what_cannot_be_decoded_or_is_not_known_is_counted_and_ignored() {
    let mut bench = Bench::open(Config::default());
    for frame in [&b""[..], b"xyz", &[0xff; 200]] {
        bench.channel.handle_frame(Bytes::copy_from_slice(frame), bench.now).unwrap();
    }
    bench.receive(MessageKind::Other("surprise".into()), 0, PayloadType::NONE, b"?");
    bench.receive(MessageKind::InputStreamData, 3, PayloadType::Output, b"not for us");
    bench.receive(MessageKind::AgentSessionState, 0, PayloadType::NONE, b"{}");
    let stats = bench.channel.stats();
    assert_eq!((stats.malformed, stats.unknown_messages), (3, 3));
    assert_eq!((bench.drain(), bench.events(), bench.read()), (vec![], vec![], vec![]));
}

#[test]
fn a_pause_of_publication_neither_stops_nor_drops_writes() {
    let mut bench = Bench::open(Config::default());
    bench.receive(MessageKind::PausePublication, 0, PayloadType::NONE, b"");
    assert_eq!(bench.write(b"on and on"), 9);
    assert_eq!(bench.data_sent(), [1]);
    assert_eq!(bench.channel.stats().publication_notices, 1);
}

#[test]
fn a_full_inbox_says_so_and_refuses_until_it_is_read() {
    let mut bench = Bench::open(Config { max_inbox: 1 << 20, ..Config::default() });
    let chunk = vec![1; 1 << 19];
    bench.output(3, &chunk);
    bench.output(4, &chunk);
    assert!(bench.channel.is_inbox_full());
    bench.output(5, b"too much");
    assert_eq!(bench.acks_sent(), [3, 4]);
    assert_eq!(bench.channel.stats().messages_refused, 1);
    assert_eq!(bench.read().len(), 1 << 20);
    assert!(!bench.channel.is_inbox_full());
    bench.output(5, b"now");
    assert_eq!(bench.acks_sent(), [5]);
}

#[test]
fn a_spurious_timeout_does_nothing() {
    let mut bench = Bench::open(Config::default());
    bench.write(b"x");
    bench.drain();
    bench.channel.handle_timeout(bench.now).unwrap();
    assert_eq!((bench.drain(), bench.events()), (vec![], vec![]));
}
