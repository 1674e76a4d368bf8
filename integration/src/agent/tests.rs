//! What the agent does with each kind of message, row by row of what was observed of the real one.

use super::*;

/// The other end of the engine, and its clock.
struct Peer {
    agent: Agent,
    now: Instant,
    sent: Vec<Message>,
    actions: Vec<Action>,
}

impl Peer {
    fn new(version: &str) -> Self {
        let now = Instant::now();
        let agent = Agent::new("lab-session", version, json!({ "portNumber": "22" }), now);
        let mut peer = Self { agent, now, sent: Vec::new(), actions: Vec::new() };
        peer.agent.handle_connected(now);
        peer.drain();
        peer
    }

    /// A session past its handshake, connected to its port, with nothing unacknowledged.
    fn streaming() -> Self {
        let mut peer = Self::connecting("3.3.0.0");
        peer.agent.handle_port_connected();
        peer
    }

    fn connecting(version: &str) -> Self {
        let mut peer = Self::new(version);
        peer.respond(ActionStatus::Success);
        peer.acknowledge(0);
        peer.acknowledge(1);
        assert_eq!(peer.take_actions(), [Action::Connect]);
        peer.take_sent();
        peer
    }

    fn drain(&mut self) {
        while let Some(frame) = self.agent.poll_transmit() {
            self.sent.push(Message::decode(frame).unwrap());
        }
        while let Some(action) = self.agent.poll_action() {
            self.actions.push(action);
        }
    }

    fn take_sent(&mut self) -> Vec<Message> {
        std::mem::take(&mut self.sent)
    }

    fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// The sequence numbers acknowledged since the last call.
    fn acknowledged(&mut self) -> Vec<i64> {
        let sent = self.take_sent().into_iter().filter(|message| message.kind == MessageKind::Acknowledge);
        sent.map(|message| Acknowledge::from_json(&message.payload).unwrap().sequence).collect()
    }

    fn deliver(&mut self, message: &Message) {
        self.agent.handle_frame(message.encode(), self.now);
        self.drain();
    }

    fn input(&mut self, sequence: i64, payload_type: PayloadType, payload: &[u8]) {
        let message = task::message(MessageKind::InputStreamData, 0, payload.to_vec());
        self.deliver(&Message { sequence, payload_type, ..message });
    }

    fn output(&mut self, sequence: i64, payload: &[u8]) {
        self.input(sequence, PayloadType::Output, payload);
    }

    fn respond(&mut self, status: ActionStatus) {
        let response = json!({
            "ClientVersion": "1.2.764.0",
            "ProcessedClientActions": [{ "ActionType": "SessionType", "ActionStatus": u32::from(status) }],
        });
        self.input(0, PayloadType::HandshakeResponse, response.to_string().as_bytes());
    }

    fn acknowledge(&mut self, sequence: i64) {
        let body = json!({ "AcknowledgedMessageSequenceNumber": sequence });
        self.deliver(&task::message(MessageKind::Acknowledge, FLAGS_SINGLE, body.to_string()));
    }

    fn written(&mut self) {
        self.agent.handle_port_written(true, self.now);
        self.drain();
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.agent.poll_timeout().filter(|due| *due <= end) {
            self.now = due.max(self.now);
            self.agent.handle_timeout(self.now);
            self.drain();
        }
        self.now = end;
    }
}

fn write(data: &'static [u8]) -> Action {
    Action::Write(Bytes::from_static(data))
}

#[test]
fn opening_sends_the_state_and_the_handshake_request_at_once() {
    let sent = Peer::new("3.3.0.0").take_sent();
    assert_eq!(sent[0].kind, MessageKind::AgentSessionState);
    assert_eq!((sent[1].sequence, sent[1].flags, sent[1].payload_type), (0, 1, PayloadType::HandshakeRequest));
    let request = br#"{"AgentVersion":"3.3.0.0","RequestedClientActions":[{"ActionType":"SessionType","ActionParameters":{"Properties":{"portNumber":"22"},"SessionType":"Port"}}]}"#;
    let expected = HandshakeRequest::from_json(request).unwrap();
    assert_eq!(HandshakeRequest::from_json(&sent[1].payload).unwrap(), expected);
}

#[test]
fn an_unanswered_handshake_is_repeated_and_fails_after_fifteen_seconds_and_a_drain() {
    let mut peer = Peer::new("3.3.0.0");
    peer.take_sent();
    peer.pass(Duration::from_millis(14_999));
    let repeats = peer.take_sent();
    assert!(repeats.len() >= 40 && repeats.iter().all(|message| message.sequence == 0), "{}", repeats.len());
    assert_eq!(peer.take_actions(), []);
    peer.pass(Duration::from_millis(2002));
    let actions = peer.take_actions();
    assert!(
        matches!(&actions[..], [Action::ClosePort, Action::Close(outcome)] if outcome.output.contains("timed out"))
    );
}

#[test]
fn data_before_the_handshake_is_acknowledged_and_discarded() {
    let mut peer = Peer::new("3.3.0.0");
    peer.take_sent();
    peer.output(0, b"lost");
    assert_eq!(peer.acknowledged(), [0]);
    assert_eq!(peer.take_actions(), []);
}

#[test]
fn an_action_that_failed_on_the_client_ends_the_session() {
    let mut peer = Peer::new("3.3.0.0");
    peer.respond(ActionStatus::Unsupported);
    peer.acknowledge(0);
    let actions = peer.take_actions();
    assert!(matches!(&actions[..], [Action::ClosePort, Action::Close(outcome)] if outcome.output.contains("status 3")));
}

#[test]
fn data_before_the_port_is_connected_is_refused_but_later_data_is_kept() {
    let mut peer = Peer::connecting("3.3.0.0");
    peer.output(1, b"early");
    peer.output(2, b"second");
    assert_eq!(peer.acknowledged(), [2]);
    peer.agent.handle_port_connected();
    peer.output(1, b"early");
    assert_eq!(peer.take_actions(), [write(b"early")]);
    peer.written();
    assert_eq!(peer.acknowledged(), [1]);
    assert_eq!(peer.take_actions(), [write(b"second")]);
    peer.written();
    assert!(peer.acknowledged().is_empty());
}

#[test]
fn old_agents_acknowledge_and_lose_data_before_the_port_is_connected() {
    let mut peer = Peer::connecting("3.0.654.0");
    peer.output(1, b"lost");
    assert_eq!(peer.acknowledged(), [1]);
    peer.agent.handle_port_connected();
    assert_eq!(peer.take_actions(), []);
}

#[test]
fn the_expected_message_is_acknowledged_once_it_is_written() {
    let mut peer = Peer::streaming();
    peer.output(1, b"data");
    assert!(peer.acknowledged().is_empty());
    assert!(!peer.agent.is_reading());
    assert_eq!(peer.take_actions(), [write(b"data")]);
    peer.written();
    assert_eq!(peer.acknowledged(), [1]);
    assert!(peer.agent.is_reading());
}

#[test]
fn a_write_that_fails_is_neither_acknowledged_nor_counted() {
    let mut peer = Peer::streaming();
    peer.output(1, b"data");
    peer.agent.handle_port_written(false, peer.now);
    peer.drain();
    assert!(peer.acknowledged().is_empty());
    peer.take_actions();
    peer.output(1, b"data");
    assert_eq!(peer.take_actions(), [write(b"data")]);
}

#[test]
fn later_messages_are_acknowledged_on_arrival_and_written_in_order() {
    let mut peer = Peer::streaming();
    peer.output(3, b"three");
    peer.output(2, b"two");
    assert_eq!(peer.acknowledged(), [3, 2]);
    peer.output(1, b"one");
    peer.written();
    peer.written();
    peer.written();
    assert_eq!(peer.take_actions(), [write(b"one"), write(b"two"), write(b"three")]);
    assert_eq!(peer.acknowledged(), [1]);
}

#[test]
fn duplicates_are_acknowledged_again_except_by_old_agents() {
    for (version, acknowledged) in [("3.3.0.0", vec![0]), ("3.2.1040.0", vec![])] {
        let mut peer = Peer::connecting(version);
        peer.output(0, b"again");
        assert_eq!(peer.acknowledged(), acknowledged, "{version}");
    }
}

#[test]
fn other_payloads_are_acknowledged_and_ignored() {
    let mut peer = Peer::streaming();
    peer.input(1, PayloadType::Size, br#"{"cols":80,"rows":24}"#);
    peer.input(2, PayloadType::Other(99), b"?");
    peer.output(3, b"");
    assert_eq!(peer.acknowledged(), [1, 2, 3]);
    assert_eq!(peer.take_actions(), []);
}

#[test]
fn a_second_handshake_response_or_a_bad_header_length_wedges_the_reader() {
    let mut peer = Peer::streaming();
    peer.input(1, PayloadType::HandshakeResponse, b"{}");
    assert!(!peer.agent.is_reading());
    assert!(peer.acknowledged().is_empty());

    let mut peer = Peer::streaming();
    peer.agent.handle_frame(Bytes::from_static(b"odd"), peer.now);
    assert!(peer.agent.is_reading());
    let mut frame = task::message(MessageKind::InputStreamData, 0, "data").encode().to_vec();
    frame[..4].copy_from_slice(&1_000_000u32.to_be_bytes());
    peer.agent.handle_frame(frame.into(), peer.now);
    assert!(!peer.agent.is_reading());
}

#[test]
fn only_the_front_is_sent_again_and_no_oftener_than_the_tick() {
    let mut peer = Peer::streaming();
    for data in [b"a", b"b", b"c"] {
        peer.agent.handle_port_data(Bytes::from_static(data), peer.now);
    }
    peer.drain();
    assert_eq!(peer.take_sent().iter().map(|message| message.sequence).collect::<Vec<_>>(), [2, 3, 4]);
    peer.pass(Duration::from_secs(1));
    let resent = peer.take_sent();
    assert!((2..=10).contains(&resent.len()) && resent.iter().all(|message| message.sequence == 2));
    assert_eq!(resent[0].payload, b"a".as_slice());
    peer.acknowledge(2);
    peer.acknowledge(4);
    peer.pass(Duration::from_secs(1));
    assert!(peer.take_sent().iter().all(|message| message.sequence == 3));
    peer.acknowledge(3);
    assert_eq!(peer.agent.poll_timeout(), None);
}

#[test]
fn publication_pauses_until_anything_comes_from_the_client() {
    let mut peer = Peer::streaming();
    peer.deliver(&task::message(MessageKind::PausePublication, 0, "{}"));
    assert!(!peer.agent.is_port_wanted());
    peer.agent.handle_port_data(Bytes::from_static(b"late"), peer.now);
    peer.pass(Duration::from_secs(1));
    assert_eq!(peer.take_sent(), []);
    peer.acknowledge(77);
    assert!(peer.agent.is_port_wanted());
    peer.pass(Duration::from_secs(1));
    assert_eq!(peer.take_sent()[0].payload, b"late".as_slice());
}

#[test]
fn a_new_socket_keeps_the_numbers_and_asks_for_no_new_handshake() {
    let mut peer = Peer::streaming();
    peer.agent.handle_port_data(Bytes::from_static(b"before"), peer.now);
    peer.drain();
    peer.take_sent();
    peer.agent.handle_disconnected();
    peer.agent.handle_port_data(Bytes::from_static(b"meanwhile"), peer.now);
    peer.drain();
    assert_eq!(peer.take_sent(), []);
    peer.agent.handle_connected(peer.now);
    peer.output(1, b"input");
    peer.written();
    assert_eq!(peer.acknowledged(), [1]);
    peer.pass(Duration::from_secs(1));
    assert_eq!(peer.take_sent()[0].sequence, 2);
}

#[test]
fn the_ports_end_waits_for_acknowledgements_at_most_two_seconds() {
    let mut peer = Peer::streaming();
    peer.agent.handle_port_data(Bytes::from_static(b"tail"), peer.now);
    peer.agent.handle_port_closed(true, peer.now);
    peer.drain();
    assert_eq!(peer.take_actions(), [Action::ClosePort]);
    peer.acknowledge(2);
    assert_eq!(peer.take_actions(), [Action::Close(Outcome::success())]);

    let mut peer = Peer::streaming();
    peer.agent.handle_port_data(Bytes::from_static(b"tail"), peer.now);
    peer.agent.handle_port_closed(true, peer.now);
    peer.pass(Duration::from_millis(1999));
    assert_eq!(peer.take_actions(), [Action::ClosePort]);
    peer.pass(Duration::from_millis(1));
    assert_eq!(peer.take_actions(), [Action::Close(Outcome::success())]);
}

#[test]
fn the_terminate_flag_ends_with_success_and_is_acknowledged() {
    let mut peer = Peer::streaming();
    peer.input(1, PayloadType::Flag, &Flag::TerminateSession.encode());
    assert_eq!(peer.acknowledged(), [1]);
    assert_eq!(peer.take_actions(), [Action::ClosePort, Action::Close(Outcome::success())]);
}

#[test]
fn the_disconnect_flag_ends_with_failure_at_once_and_is_not_acknowledged() {
    let mut peer = Peer::streaming();
    peer.input(1, PayloadType::Flag, &Flag::DisconnectToPort.encode());
    assert!(peer.acknowledged().is_empty());
    assert!(matches!(&peer.take_actions()[..], [Action::Close(outcome)] if !outcome.success));
}

#[test]
fn a_port_that_refuses_crashes_the_worker() {
    let mut peer = Peer::connecting("3.3.0.0");
    peer.agent.handle_port_refused();
    peer.drain();
    assert!(matches!(&peer.take_actions()[..], [Action::Close(outcome)] if outcome.crashed));
    assert_eq!(peer.agent.poll_timeout(), None);
}

#[test]
fn channel_closed_ends_with_success() {
    let mut peer = Peer::streaming();
    peer.deliver(&task::message(MessageKind::ChannelClosed, 0, "{}"));
    assert_eq!(peer.take_actions(), [Action::ClosePort, Action::Close(Outcome::success())]);
}

#[test]
fn input_right_after_handshake_complete_can_be_acknowledged_and_lost() {
    let mut peer = Peer::new("3.3.0.0");
    peer.agent.set_completion_lag(Duration::from_millis(1));
    peer.respond(ActionStatus::Success);
    peer.agent.handle_port_connected();
    peer.take_actions();
    peer.take_sent();
    peer.output(1, b"lost");
    assert_eq!(peer.acknowledged(), [1]);
    assert_eq!(peer.take_actions(), []);
    peer.now += Duration::from_millis(1);
    peer.output(2, b"kept");
    assert_eq!(peer.take_actions(), [Action::Write(Bytes::from_static(b"kept"))]);
}
