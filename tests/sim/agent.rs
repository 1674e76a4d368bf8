//! The node's side of a data channel, as the amazon-ssm-agent behaves: one acknowledgement a message, a reorder buffer
//! of 100,000, at most one message resent every 100 ms and only the oldest, 1024 bytes read from the port at a time
//! with 1 ms between.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use bytes::Bytes;
use ssmssh::wire::{
    Acknowledge, Body, FLAGS_FIRST, FLAGS_SINGLE, Flag, Frame, HandshakeRequest, HandshakeResponse, Message,
    MessageKind, PayloadType,
};
use uuid::Uuid;

use crate::app::{DOWN, UP, pattern};

const READ: usize = 1024;
const PUMP_PAUSE: Duration = Duration::from_millis(1);
const RESEND_TICK: Duration = Duration::from_millis(100);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);
const DRAIN: Duration = Duration::from_secs(2);
const REORDER_BUFFER: usize = 100_000;
const REQUEST: &[u8] = br#"{"AgentVersion":"3.3.0.0","RequestedClientActions":[{"ActionType":"SessionType","ActionParameters":{"SessionType":"Port","Properties":{"portNumber":"22"}}}]}"#;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    /// From `HandshakeComplete` until the port is connected. Stream data that comes earlier is not acknowledged.
    pub(crate) connect_delay: Duration,
    /// Whether the port's server sends before it has received, as sshd does.
    pub(crate) speaks_first: bool,
    /// Bytes the server has to send.
    pub(crate) to_send: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Requested { since: Instant },
    Complete { ready_at: Instant },
    Terminating { until: Instant },
    Gone,
}

struct Sent {
    sequence: i64,
    frame: Bytes,
    at: Instant,
}

pub(crate) struct Agent {
    options: Options,
    state: State,
    outgoing: VecDeque<Bytes>,

    expected: i64,
    early: BTreeMap<i64, Message>,
    pub(crate) received: usize,

    next_sequence: i64,
    unacknowledged: VecDeque<Sent>,
    pub(crate) sent: usize,
    timeout: Timeout,
    next_pump: Instant,
    next_tick: Instant,
}

/// The agent's own estimator: no back-off, no Karn's rule.
struct Timeout {
    mean: Duration,
    variation: Duration,
}

impl Timeout {
    fn record(&mut self, sample: Duration) {
        self.variation = self.variation * 3 / 4 + self.mean.abs_diff(sample) / 4;
        self.mean = self.mean * 7 / 8 + sample / 8;
    }

    fn value(&self) -> Duration {
        (self.mean + (self.variation * 4).max(Duration::from_millis(10))).min(Duration::from_secs(1))
    }
}

impl Agent {
    pub(crate) fn new(options: Options, now: Instant) -> Self {
        let mut agent = Self {
            options,
            state: State::Requested { since: now },
            outgoing: VecDeque::new(),
            expected: 0,
            early: BTreeMap::new(),
            received: 0,
            next_sequence: 0,
            unacknowledged: VecDeque::new(),
            sent: 0,
            timeout: Timeout { mean: Duration::from_millis(100), variation: Duration::ZERO },
            next_pump: now,
            next_tick: now + RESEND_TICK,
        };
        debug_assert!(HandshakeRequest::from_json(REQUEST).is_ok());
        agent.send(PayloadType::HandshakeRequest, Bytes::from_static(REQUEST), now);
        agent
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.state == State::Gone
    }

    pub(crate) fn poll_transmit(&mut self) -> Option<Bytes> {
        self.outgoing.pop_front()
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Gone => None,
            State::Complete { ready_at } if self.has_bytes() => Some(self.next_tick.min(ready_at.max(self.next_pump))),
            _ => Some(self.next_tick),
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Result<(), String> {
        if self.is_gone() {
            return Ok(());
        }
        if now >= self.next_tick {
            self.next_tick = now + RESEND_TICK;
            self.resend_oldest(now);
        }
        if now >= self.next_pump {
            self.next_pump = now + PUMP_PAUSE;
            self.pump(now);
        }
        match self.state {
            State::Requested { since } if now >= since + HANDSHAKE_TIMEOUT => {
                Err("the agent's handshake timed out".into())
            }
            State::Terminating { until } if now >= until || self.unacknowledged.is_empty() => {
                self.state = State::Gone;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn resend_oldest(&mut self, now: Instant) {
        let timeout = self.timeout.value();
        if let Some(oldest) = self.unacknowledged.front_mut().filter(|oldest| now >= oldest.at + timeout) {
            oldest.at = now;
            self.outgoing.push_back(oldest.frame.clone());
        }
    }

    fn has_bytes(&self) -> bool {
        self.sent < self.options.to_send && (self.options.speaks_first || self.received > 0)
    }

    fn pump(&mut self, now: Instant) {
        let State::Complete { ready_at } = self.state else { return };
        if now < ready_at || !self.has_bytes() {
            return;
        }
        let end = self.options.to_send.min(self.sent + READ);
        let payload: Bytes = (self.sent..end).map(|offset| pattern(DOWN, offset)).collect();
        self.sent = end;
        self.send(PayloadType::Output, payload, now);
    }

    pub(crate) fn handle_frame(&mut self, frame: Bytes, now: Instant) -> Result<(), String> {
        if self.is_gone() {
            return Ok(());
        }
        let frame = Frame::decode(frame).map_err(|error| format!("the client sent no message: {error}"))?;
        ensure(frame.is_digest_right(), || "the client sent a wrong digest".into())?;
        match frame.message.kind {
            MessageKind::InputStreamData => self.handle_stream_data(frame.message, now),
            MessageKind::Acknowledge => self.handle_acknowledge(&frame.message, now),
            other => Err(format!("the client sent {}", other.as_str())),
        }
    }

    fn handle_acknowledge(&mut self, message: &Message, now: Instant) -> Result<(), String> {
        let ack = Acknowledge::from_json(&message.payload).map_err(|error| error.to_string())?;
        ensure(ack.sequence < self.next_sequence, || format!("acknowledgement of {}, never sent", ack.sequence))?;
        if let Some(index) = self.unacknowledged.iter().position(|sent| sent.sequence == ack.sequence)
            && let Some(sent) = self.unacknowledged.remove(index)
        {
            self.timeout.record(now - sent.at);
        }
        Ok(())
    }

    fn handle_stream_data(&mut self, message: Message, now: Instant) -> Result<(), String> {
        if message.sequence > self.expected {
            ensure(self.early.len() < REORDER_BUFFER, || "the agent's reorder buffer is full".into())?;
            self.acknowledge(&message);
            self.early.insert(message.sequence, message);
        } else if message.sequence < self.expected {
            self.acknowledge(&message);
        } else if self.process(&message, now)? {
            self.acknowledge(&message);
            self.expected += 1;
            while let Some(message) = self.early.remove(&self.expected) {
                ensure(self.process(&message, now)?, || "the port is gone again".into())?;
                self.expected += 1;
            }
        }
        Ok(())
    }

    /// False where the agent is not ready.
    fn process(&mut self, message: &Message, now: Instant) -> Result<bool, String> {
        match (self.state, message.payload_type) {
            (State::Requested { .. }, PayloadType::HandshakeResponse) => {
                let response = HandshakeResponse::from_json(&message.payload).map_err(|error| error.to_string())?;
                ensure(response.processed_client_actions.len() == 1, || "an action was not answered".into())?;
                self.state = State::Complete { ready_at: now + self.options.connect_delay };
                self.send(PayloadType::HandshakeComplete, Bytes::from_static(b"{}"), now);
                Ok(true)
            }
            (State::Requested { .. }, _) => Err("data before the handshake was complete is lost".into()),
            (_, PayloadType::HandshakeResponse) => Err("a second handshake response blocks the agent".into()),
            (State::Complete { ready_at }, _) if now < ready_at => Ok(false),
            (State::Complete { .. }, PayloadType::Output) => self.write_to_port(&message.payload).map(|()| true),
            (State::Complete { .. }, PayloadType::Flag) => {
                let flag = Flag::decode(&message.payload);
                ensure(flag == Some(Flag::TerminateSession), || format!("the client sent {flag:?}"))?;
                self.state = State::Terminating { until: now + DRAIN };
                Ok(true)
            }
            (_, other) => Err(format!("the client sent {other:?} after the end or out of place")),
        }
    }

    fn write_to_port(&mut self, payload: &[u8]) -> Result<(), String> {
        ensure(!payload.is_empty(), || "the client sent an empty payload".into())?;
        for byte in payload {
            let expected = pattern(UP, self.received);
            ensure(*byte == expected, || format!("byte {} of the upload is not what was written", self.received))?;
            self.received += 1;
        }
        Ok(())
    }

    fn acknowledge(&mut self, message: &Message) {
        let body = Acknowledge {
            message_type: message.kind.as_str().into(),
            message_id: message.id,
            sequence: message.sequence,
            is_sequential: true,
        };
        let ack = self.message(MessageKind::Acknowledge, 0, FLAGS_SINGLE, PayloadType::NONE, body.to_payload());
        self.outgoing.push_back(ack.encode());
    }

    fn send(&mut self, payload_type: PayloadType, payload: Bytes, now: Instant) {
        let sequence = self.next_sequence;
        let flags = if sequence == 0 { FLAGS_FIRST } else { 0 };
        self.next_sequence += 1;
        let frame = self.message(MessageKind::OutputStreamData, sequence, flags, payload_type, payload).encode();
        self.outgoing.push_back(frame.clone());
        self.unacknowledged.push_back(Sent { sequence, frame, at: now });
    }

    fn message(
        &self,
        kind: MessageKind,
        sequence: i64,
        flags: u64,
        payload_type: PayloadType,
        payload: Bytes,
    ) -> Message {
        let id = Uuid::from_u128(u128::from(self.next_sequence.unsigned_abs()));
        Message { kind, created_millis: 1, sequence, flags, id, payload_type, payload }
    }
}

pub(crate) fn ensure(holds: bool, violation: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(violation()) }
}
