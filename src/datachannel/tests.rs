//! The engine as its driver sees it.

mod ending;
mod handshake;
mod reliability;
mod robustness;

use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use uuid::Uuid;

use super::*;
use crate::wire::{Acknowledge, ChannelClosed, Message, MessageKind, PayloadType};

const MS: Duration = Duration::from_millis(1);
/// No sequence numbers.
const NOTHING: [i64; 0] = [];
const REQUEST: &str = r#"{"AgentVersion":"3.3.0.0","RequestedClientActions":[{"ActionType":"SessionType","ActionParameters":{"SessionType":"Port","Properties":{"portNumber":"22"}}}]}"#;

/// Some moment for a test to begin at: only the clock makes one.
pub(super) fn start() -> Instant {
    Instant::now()
}

/// An engine with its driver, and a hand to play the agent with.
struct Bench {
    channel: DataChannel,
    now: Instant,
}

impl Bench {
    fn new(config: Config) -> Self {
        let now = start();
        Self { channel: DataChannel::new(config, 1, now, SystemTime::UNIX_EPOCH), now }
    }

    /// Connected; the open message is gone.
    fn connected() -> Self {
        let mut bench = Self::new(Config::default());
        bench.connect();
        bench
    }

    /// Through the handshake and the hold-off: data is number 1 from here.
    fn open(config: Config) -> Self {
        let mut bench = Self::new(config);
        bench.connect();
        bench.shake_hands("3.3.0.0");
        bench.output(2, b"SSH-2.0-agent\r\n");
        assert_eq!(bench.read(), b"SSH-2.0-agent\r\n");
        bench.drain();
        bench.events();
        bench
    }

    fn connect(&mut self) {
        self.channel.handle_connected("token", self.now);
        assert!(matches!(self.channel.poll_transmit(self.now), Some(Transmit::Text(_))));
    }

    fn shake_hands(&mut self, agent_version: &str) {
        self.stream(0, PayloadType::HandshakeRequest, REQUEST.replace("3.3.0.0", agent_version).as_bytes());
        self.drain();
        self.ack(0);
        self.stream(1, PayloadType::HandshakeComplete, b"{}");
        self.drain();
    }

    fn receive(&mut self, kind: MessageKind, sequence: i64, payload_type: PayloadType, payload: &[u8]) {
        self.try_receive(kind, sequence, payload_type, payload).unwrap();
    }

    fn try_receive(
        &mut self,
        kind: MessageKind,
        sequence: i64,
        payload_type: PayloadType,
        payload: &[u8],
    ) -> Result<(), ChannelError> {
        let id = Uuid::from_u128(u128::from(sequence.unsigned_abs()));
        let payload = Bytes::copy_from_slice(payload);
        let message = Message { kind, created_millis: 1, sequence, flags: 0, id, payload_type, payload };
        self.channel.handle_frame(message.encode(), self.now)
    }

    fn stream(&mut self, sequence: i64, payload_type: PayloadType, payload: &[u8]) {
        self.receive(MessageKind::OutputStreamData, sequence, payload_type, payload);
    }

    fn output(&mut self, sequence: i64, payload: &[u8]) {
        self.stream(sequence, PayloadType::Output, payload);
    }

    fn try_ack(&mut self, sequence: i64) -> Result<(), ChannelError> {
        let ack = Acknowledge {
            message_type: "input_stream_data".into(),
            message_id: Uuid::nil(),
            sequence,
            is_sequential: true,
        };
        self.try_receive(MessageKind::Acknowledge, 0, PayloadType::NONE, &ack.to_payload())
    }

    fn ack(&mut self, sequence: i64) {
        self.try_ack(sequence).unwrap();
    }

    fn close(&mut self, body: &[u8]) {
        self.receive(MessageKind::ChannelClosed, 0, PayloadType::Other(261), body);
    }

    fn closed_with(output: &str) -> Vec<u8> {
        ChannelClosed { output: output.into(), ..ChannelClosed::default() }.to_payload().to_vec()
    }

    fn write(&mut self, data: &[u8]) -> usize {
        self.channel.write(data, self.now)
    }

    /// Everything there is to read, until nothing is.
    fn read(&mut self) -> Vec<u8> {
        std::iter::from_fn(|| self.channel.read()).flatten().collect()
    }

    fn frames(&mut self) -> Vec<Bytes> {
        let next = || self.channel.poll_transmit(self.now);
        let frames = std::iter::from_fn(next).filter_map(|transmit| match transmit {
            Transmit::Binary(frame) => Some(frame),
            Transmit::Text(_) => None,
        });
        frames.collect()
    }

    fn drain(&mut self) -> Vec<Message> {
        self.frames().into_iter().map(|frame| Message::decode(frame).unwrap()).collect()
    }

    /// The sequence numbers of the data sent in a drain.
    fn data_sent(&mut self) -> Vec<i64> {
        let sent = self.drain().into_iter();
        sent.filter(|message| message.kind == MessageKind::InputStreamData).map(|message| message.sequence).collect()
    }

    /// The sequence numbers acknowledged in a drain.
    fn acks_sent(&mut self) -> Vec<i64> {
        let sent = self.drain().into_iter().filter(|message| message.kind == MessageKind::Acknowledge);
        sent.map(|message| Acknowledge::from_json(&message.payload).unwrap().sequence).collect()
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.channel.poll_event()).collect()
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    /// Lets time pass with the timer served, and returns the sequence numbers of the data sent meanwhile.
    fn run(&mut self, time: Duration) -> Vec<i64> {
        let end = self.now + time;
        let mut sent = self.data_sent();
        while let Some(deadline) = self.channel.poll_timeout().filter(|deadline| *deadline <= end) {
            assert!(deadline > self.now, "a deadline in the past after a drain");
            self.now = deadline;
            self.channel.handle_timeout(self.now).unwrap();
            sent.extend(self.data_sent());
        }
        self.now = end;
        sent
    }
}
