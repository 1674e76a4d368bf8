//! From the open message to the first byte.

use super::*;
use crate::wire::{HandshakeResponse, OpenDataChannel};

const KMS: &str =
    r#"{"AgentVersion":"3.3.0.0","RequestedClientActions":[{"ActionType":"KMSEncryption","ActionParameters":{}}]}"#;

fn kinds(messages: &[Message]) -> Vec<(&str, PayloadType)> {
    messages.iter().map(|message| (message.kind.as_str(), message.payload_type)).collect()
}

fn established(version: &str) -> Event {
    Event::Established { agent_version: version.into() }
}

#[test]
fn nothing_is_sent_before_there_is_a_websocket() {
    let mut bench = Bench::new(Config::default());
    assert_eq!(bench.channel.poll_transmit(bench.now), None);
    assert_eq!(bench.channel.poll_timeout(), None);
    assert_eq!(bench.write(b"x"), 0);
}

#[test]
fn the_open_message_comes_first_with_the_same_client_id_and_a_new_request_id_each_time() {
    let mut bench = Bench::new(Config::default());
    let mut open = || {
        bench.channel.handle_connected("secret", bench.now);
        let Some(Transmit::Text(text)) = bench.channel.poll_transmit(bench.now) else { panic!("no open message") };
        bench.channel.handle_disconnected(bench.now);
        OpenDataChannel::from_json(text.as_bytes()).unwrap()
    };
    let (first, second) = (open(), open());
    assert_eq!(first.token_value, "secret");
    assert_eq!(first.client_version.as_deref(), Some("1.2.764.0"));
    assert_eq!(first.client_id, second.client_id);
    assert_ne!(first.request_id, second.request_id);
    assert!(!format!("{:?}", bench.channel).contains("secret"));
}

#[test]
fn the_request_is_acknowledged_and_then_answered_with_number_0() {
    let mut bench = Bench::connected();
    bench.stream(0, PayloadType::HandshakeRequest, REQUEST.as_bytes());
    let sent = bench.drain();
    let expected = [("acknowledge", PayloadType::NONE), ("input_stream_data", PayloadType::HandshakeResponse)];
    assert_eq!(kinds(&sent), expected);
    assert_eq!((sent[1].sequence, sent[1].flags), (0, 0));
    let response = HandshakeResponse::from_json(&sent[1].payload).unwrap();
    assert_eq!(response.processed_client_actions.len(), 1);
    assert!(bench.events().is_empty());
}

#[test]
fn completion_establishes_the_channel_with_the_agents_version() {
    let mut bench = Bench::connected();
    bench.shake_hands("3.3.987.0");
    assert_eq!(bench.events(), [established("3.3.987.0")]);
    assert!(bench.channel.is_writable());
}

#[test]
fn bytes_written_early_leave_with_the_agents_first_output() {
    let mut bench = Bench::connected();
    bench.shake_hands("3.3.0.0");
    assert_eq!(bench.write(b"SSH-2.0-client\r\n"), 16);
    assert_eq!(bench.data_sent(), NOTHING);
    bench.output(2, b"SSH-2.0-agent\r\n");
    let sent = bench.drain();
    assert_eq!(kinds(&sent)[1], ("input_stream_data", PayloadType::Output));
    assert_eq!((sent[1].sequence, &sent[1].payload[..]), (1, b"SSH-2.0-client\r\n".as_slice()));
}

#[test]
fn without_output_bytes_leave_after_the_hold_off() {
    for (version, hold_off) in [("3.3.0.0", 30), ("3.0.0.0", 1000)] {
        let mut bench = Bench::connected();
        bench.shake_hands(version);
        bench.write(b"hello");
        assert_eq!(bench.run((hold_off - 1) * MS), NOTHING, "{version}");
        assert_eq!(bench.run(MS), [1], "{version}");
    }
}

#[test]
fn there_is_never_a_second_response_under_a_new_number() {
    let mut bench = Bench::connected();
    bench.stream(0, PayloadType::HandshakeRequest, REQUEST.as_bytes());
    let first = bench.frames().pop();
    bench.stream(0, PayloadType::HandshakeRequest, REQUEST.as_bytes());
    assert_eq!(bench.data_sent(), NOTHING);
    bench.stream(1, PayloadType::HandshakeRequest, REQUEST.as_bytes());
    assert_eq!(bench.data_sent(), NOTHING);
    bench.channel.handle_disconnected(bench.now);
    bench.connect();
    assert_eq!(bench.frames().pop(), first);
}

#[test]
fn output_before_the_handshake_is_acknowledged_and_does_not_open_the_channel() {
    let mut bench = Bench::connected();
    bench.output(0, b"early");
    assert_eq!(bench.acks_sent(), [0]);
    assert_eq!(bench.read(), b"early");
    assert_eq!(bench.write(b"x"), 0);
}

#[test]
fn only_output_reaches_the_reader() {
    let mut bench = Bench::open(Config::default());
    for (sequence, code) in (3..).zip([2, 3, 4, 6, 8, 9, 10, 11, 12, 99]) {
        bench.stream(sequence, PayloadType::from(code), &[0, 0, 0, 3]);
    }
    assert_eq!(bench.acks_sent().len(), 10);
    assert_eq!(bench.read(), b"");
    assert_eq!(bench.channel.stats().unknown_payloads, 10);
}

#[test]
fn an_unexpected_action_is_refused_and_the_error_comes_when_the_agent_has_heard() {
    let mut bench = Bench::connected();
    bench.stream(0, PayloadType::HandshakeRequest, KMS.as_bytes());
    let sent = bench.drain();
    assert!(sent[1].payload.windows(16).any(|text| text == br#""ActionStatus":3"#));
    let error = ChannelError::UnsupportedAction { action: "KMSEncryption".into() };
    assert_eq!(bench.try_ack(0), Err(error));
    assert!(bench.channel.is_closed());
    assert_eq!(bench.drain(), []);
}

#[test]
fn a_refusal_that_nobody_acknowledges_is_an_error_in_the_end() {
    let mut bench = Bench::connected();
    bench.stream(0, PayloadType::HandshakeRequest, KMS.as_bytes());
    bench.drain();
    bench.pass(2000 * MS);
    assert!(matches!(bench.channel.handle_timeout(bench.now), Err(ChannelError::UnsupportedAction { .. })));
}

#[test]
fn the_services_words_on_a_refusal_do_not_hide_what_was_refused() {
    let mut bench = Bench::connected();
    bench.stream(0, PayloadType::HandshakeRequest, KMS.as_bytes());
    let text = Bench::closed_with("KMSEncryption failed on client with status 3");
    let result = bench.try_receive(MessageKind::ChannelClosed, 0, PayloadType::NONE, &text);
    assert!(matches!(result, Err(ChannelError::UnsupportedAction { .. })));
}

#[test]
fn a_request_that_cannot_be_read_is_an_error_at_once() {
    let mut bench = Bench::connected();
    let result = bench.try_receive(MessageKind::OutputStreamData, 0, PayloadType::HandshakeRequest, b"{");
    assert!(matches!(result, Err(ChannelError::MalformedHandshake { .. })));
}

#[test]
fn the_handshake_has_a_limit_that_starts_anew_with_each_websocket() {
    let limit = Config::default().handshake_timeout;
    let mut bench = Bench::connected();
    bench.run(limit / 2);
    bench.channel.handle_disconnected(bench.now);
    bench.run(limit);
    bench.connect();
    bench.pass(limit);
    assert_eq!(bench.channel.handle_timeout(bench.now), Err(ChannelError::HandshakeTimeout(limit)));
    assert_eq!(bench.channel.poll_timeout(), None);
}

#[test]
fn a_handshake_that_is_complete_has_no_limit() {
    let mut bench = Bench::open(Config::default());
    bench.run(Duration::from_hours(1));
    assert!(!bench.channel.is_closed());
}
