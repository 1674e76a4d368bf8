//! The node's side of one data channel: the agent's Port session as an engine without I/O.
//!
//! Written from observed behaviour, pitfalls included: only the front of the outbox is sent again, a payload is written to
//! the port before it is acknowledged, data before the handshake is acknowledged and discarded. Input by `handle_*`, output by
//! `poll_*`, like the product's own engine, with which it shares nothing but the message format.

mod outbox;
mod version;

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use bytes::Bytes;
use serde_json::{Value, json};
use ssmssh::wire::{
    Acknowledge, ActionStatus, AgentSessionState, Body, DecodeError, FLAGS_FIRST, FLAGS_SINGLE, Flag,
    HandshakeComplete, HandshakeRequest, HandshakeResponse, Message, MessageKind, PayloadType, RequestedClientAction,
};

use crate::task;
use outbox::Outbox;
use version::Behaviour;

/// Messages that may wait for an earlier one (agent: `IncomingMessageBufferSize`).
const REORDER_CAPACITY: usize = 100_000;
/// From sending the request (agent: `handshakeTimeout`).
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);
/// Most that the agent waits for acknowledgements before it closes (agent: `PrepareToCloseChannel`).
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// What the engine asks of its driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Connect to the port; answer with `handle_port_connected` or `handle_port_refused`.
    Connect,
    /// Write all of this to the port; answer with `handle_port_written`. Until then nothing is read from the WebSocket.
    Write(Bytes),
    /// Close the port.
    ClosePort,
    /// Drop the WebSocket without a close frame and report the outcome. Nothing follows.
    Close(Outcome),
}

/// How a session ended, for `agent_task_complete`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Whether `FinalTaskStatus` is `Success`.
    pub success: bool,
    /// The text for the user; empty after a normal end.
    pub output: String,
    /// The worker died instead of ending; its master notices a minute later.
    pub crashed: bool,
}

impl Outcome {
    fn success() -> Self {
        Self { success: true, output: String::new(), crashed: false }
    }

    fn failure(output: impl Into<String>) -> Self {
        Self { success: false, output: output.into(), crashed: false }
    }
}

/// The engine.
#[derive(Debug)]
pub struct Agent {
    session: String,
    version: String,
    behaviour: Behaviour,
    properties: Value,
    phase: Phase,
    next_sequence: i64,
    expected: i64,
    /// How long after `HandshakeComplete`, and until when, input is still acknowledged and lost.
    completion_lag: Duration,
    complete_at: Option<Instant>,
    outbox: Outbox,
    reordered: BTreeMap<i64, Message>,
    /// The message being written to the port, and whether it was acknowledged when it was buffered.
    writing: Option<(Message, bool)>,
    connected: bool,
    paused: bool,
    /// The reader has ended without a word; nothing will be read again.
    wedged: bool,
    transmits: VecDeque<Bytes>,
    actions: VecDeque<Action>,
}

/// ```text
/// Opening -> Handshake -> Connecting -> Streaming -> Draining -> Closed
/// ```
#[derive(Debug)]
enum Phase {
    Opening,
    Handshake { since: Instant },
    Connecting,
    Streaming,
    Draining { until: Instant, outcome: Outcome },
    Closed,
}

/// What became of one message.
enum Processed {
    Done,
    /// It is being written; `handle_port_written` goes on.
    Writing,
    /// Neither acknowledged nor counted: the sender will repeat it.
    Refused,
}

impl Agent {
    /// An agent of `version` for one SSM session; `properties` are the document's, `portNumber` among them.
    pub fn new(session: &str, version: &str, properties: Value, now: Instant) -> Self {
        Self {
            session: session.to_owned(),
            version: version.to_owned(),
            behaviour: Behaviour::of(version),
            properties,
            phase: Phase::Opening,
            next_sequence: 0,
            expected: 0,
            completion_lag: Duration::ZERO,
            complete_at: None,
            outbox: Outbox::new(now),
            reordered: BTreeMap::new(),
            writing: None,
            connected: false,
            paused: false,
            wedged: false,
            transmits: VecDeque::new(),
            actions: VecDeque::new(),
        }
    }

    /// How long after sending `HandshakeComplete` the agent goes on to acknowledge and discard input, because it marks the
    /// handshake as complete only after it has sent the message. Default zero.
    pub fn set_completion_lag(&mut self, lag: Duration) {
        self.completion_lag = lag;
    }

    /// The WebSocket is open and the open message sent. The first time, the handshake starts.
    pub fn handle_connected(&mut self, now: Instant) {
        self.connected = true;
        self.paused = false;
        if matches!(self.phase, Phase::Opening) {
            self.phase = Phase::Handshake { since: now };
            self.send_state("Connected");
            let request = self.handshake_request();
            self.send_stream(PayloadType::HandshakeRequest, request, now);
        }
    }

    /// The WebSocket is gone. The port goes on being read; what is read is kept for resending.
    pub fn handle_disconnected(&mut self) {
        self.connected = false;
        self.wedged = false;
        self.transmits.clear();
    }

    /// One binary message from the WebSocket.
    pub fn handle_frame(&mut self, frame: Bytes, now: Instant) {
        match Message::decode(frame) {
            Ok(message) if message.created_millis != 0 => self.handle_message(message, now),
            Err(DecodeError::HeaderLength { header_length, length }) if header_length as usize + 4 > length => {
                self.wedged = true;
            }
            _ => {}
        }
    }

    /// The port took the connection.
    pub fn handle_port_connected(&mut self) {
        if matches!(self.phase, Phase::Connecting) {
            self.phase = Phase::Streaming;
        }
    }

    /// Nothing listens on the port: the agent's worker crashes.
    pub fn handle_port_refused(&mut self) {
        let output = "document process failed unexpectedly: document worker timed out, check [ssm-document-worker]/\
                      [ssm-session-worker] log for crash reason";
        self.close(Outcome { crashed: true, ..Outcome::failure(output) });
    }

    /// The bytes of the last [`Action::Write`] are with the port, or could not be written.
    pub fn handle_port_written(&mut self, written: bool, now: Instant) {
        if let Some((message, acknowledged)) = self.writing.take()
            && written
        {
            self.count(&message, acknowledged);
            self.drain_reordered(now);
        }
    }

    /// Bytes read from the port, one message.
    pub fn handle_port_data(&mut self, data: Bytes, now: Instant) {
        if matches!(self.phase, Phase::Streaming) && !data.is_empty() {
            self.send_stream(PayloadType::Output, data, now);
        }
    }

    /// The port's end of file, or an error.
    pub fn handle_port_closed(&mut self, clean: bool, now: Instant) {
        let outcome = if clean { Outcome::success() } else { Outcome::failure("the connection to the port failed") };
        self.end(outcome, now);
    }

    /// `channel_closed`, on whichever channel it came.
    pub fn handle_cancel(&mut self, now: Instant) {
        self.end(Outcome::success(), now);
    }

    /// The deadline of `poll_timeout` has passed. A spurious call does nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.connected
            && !self.paused
            && let Some(frame) = self.outbox.resend(now)
        {
            self.transmits.push_back(frame);
        }
        match &self.phase {
            Phase::Handshake { since } if now >= *since + HANDSHAKE_TIMEOUT => {
                let output = "Handshake timed out. Please ensure that you have the latest version of the session \
                              manager plugin.";
                self.end(Outcome::failure(output), now);
            }
            Phase::Draining { until, .. } if now >= *until => self.finish_draining(),
            _ => {}
        }
    }

    /// The next frame to send; to be drained before the actions.
    pub fn poll_transmit(&mut self) -> Option<Bytes> {
        self.transmits.pop_front()
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to call `handle_timeout`.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let deadline = match self.phase {
            Phase::Handshake { since } => Some(since + HANDSHAKE_TIMEOUT),
            Phase::Draining { until, .. } => Some(until),
            Phase::Closed => return None,
            _ => None,
        };
        let tick = if self.connected && !self.paused { self.outbox.next_tick() } else { None };
        [deadline, tick].into_iter().flatten().min()
    }

    /// Whether the WebSocket is to be read.
    pub fn is_reading(&self) -> bool {
        !self.wedged && self.writing.is_none()
    }

    /// Whether the port is to be read.
    pub fn is_port_wanted(&self) -> bool {
        matches!(self.phase, Phase::Streaming) && !(self.paused && self.behaviour.stops_when_paused)
    }

    fn handle_message(&mut self, message: Message, now: Instant) {
        match message.kind {
            MessageKind::InputStreamData => {
                self.paused = false;
                self.handle_input(message, now);
            }
            MessageKind::Acknowledge => {
                self.paused = false;
                if let Ok(acknowledge) = Acknowledge::from_json(&message.payload) {
                    self.outbox.acknowledge(acknowledge.sequence, now);
                    self.check_drained();
                }
            }
            MessageKind::ChannelClosed => self.handle_cancel(now),
            MessageKind::StartPublication => self.paused = false,
            MessageKind::PausePublication => self.paused = true,
            _ => {}
        }
    }

    fn handle_input(&mut self, message: Message, now: Instant) {
        if message.sequence > self.expected {
            if self.reordered.len() < REORDER_CAPACITY {
                self.acknowledge(&message);
                self.reordered.insert(message.sequence, message);
            }
        } else if message.sequence < self.expected {
            if self.behaviour.acknowledges_duplicates {
                self.acknowledge(&message);
            }
        } else if let Processed::Done = self.process(&message, false, now) {
            self.count(&message, false);
            self.drain_reordered(now);
        }
    }

    /// Goes on with what was buffered. A message that is refused here stays, and blocks all behind it, as in the agent.
    fn drain_reordered(&mut self, now: Instant) {
        while let Some(message) = self.reordered.get(&self.expected).cloned() {
            match self.process(&message, true, now) {
                Processed::Done => self.count(&message, true),
                Processed::Writing | Processed::Refused => return,
            }
        }
    }

    fn count(&mut self, message: &Message, acknowledged: bool) {
        if !acknowledged {
            self.acknowledge(message);
        }
        self.reordered.remove(&message.sequence);
        self.expected += 1;
    }

    fn process(&mut self, message: &Message, acknowledged: bool, now: Instant) -> Processed {
        match (&self.phase, message.payload_type) {
            (Phase::Handshake { since }, PayloadType::HandshakeResponse) => {
                let since = *since;
                self.handle_handshake_response(&message.payload, since, now)
            }
            (Phase::Handshake { .. }, _) => Processed::Done,
            (_, PayloadType::Output) if self.complete_at.is_some_and(|complete| now < complete) => Processed::Done,
            (_, PayloadType::HandshakeResponse) => {
                self.wedged = true;
                Processed::Refused
            }
            (Phase::Connecting, PayloadType::Output) if self.behaviour.refuses_early_data => Processed::Refused,
            (Phase::Streaming, PayloadType::Output) if !message.payload.is_empty() => {
                self.writing = Some((message.clone(), acknowledged));
                self.actions.push_back(Action::Write(message.payload.clone()));
                Processed::Writing
            }
            (Phase::Draining { .. } | Phase::Closed, PayloadType::Output | PayloadType::Flag) => Processed::Refused,
            (_, PayloadType::Flag) => self.handle_flag(&message.payload, now),
            _ => Processed::Done,
        }
    }

    fn handle_flag(&mut self, payload: &[u8], now: Instant) -> Processed {
        match Flag::decode(payload) {
            Some(Flag::TerminateSession) => {
                self.end(Outcome::success(), now);
                Processed::Done
            }
            Some(Flag::DisconnectToPort) => {
                self.close(Outcome::failure("the client disconnected from the port"));
                Processed::Refused
            }
            _ => Processed::Done,
        }
    }

    fn handle_handshake_response(&mut self, payload: &[u8], since: Instant, now: Instant) -> Processed {
        let Ok(response) = HandshakeResponse::from_json(payload) else { return Processed::Refused };
        let failed = response.processed_client_actions.iter().find(|it| it.action_status != ActionStatus::Success);
        if let Some(action) = failed {
            let (name, status) = (&action.action_type, u32::from(action.action_status));
            let output = format!("{name} failed on client with status {status} error: {}", action.error);
            self.end(Outcome::failure(output), now);
            return Processed::Done;
        }
        let nanos = i64::try_from(now.saturating_duration_since(since).as_nanos()).unwrap_or(i64::MAX);
        let complete = HandshakeComplete { handshake_time_to_complete: nanos, ..HandshakeComplete::default() };
        self.phase = Phase::Connecting;
        self.complete_at = Some(now + self.completion_lag);
        self.send_stream(PayloadType::HandshakeComplete, complete.to_payload(), now);
        self.actions.push_back(Action::Connect);
        Processed::Done
    }

    fn end(&mut self, outcome: Outcome, now: Instant) {
        if matches!(self.phase, Phase::Draining { .. } | Phase::Closed) {
            return;
        }
        self.writing = None;
        self.actions.push_back(Action::ClosePort);
        let until = if self.behaviour.drains { now + DRAIN_TIMEOUT } else { now };
        self.phase = Phase::Draining { until, outcome };
        self.check_drained();
    }

    fn check_drained(&mut self) {
        if matches!(self.phase, Phase::Draining { .. }) && (self.outbox.is_empty() || !self.behaviour.drains) {
            self.finish_draining();
        }
    }

    fn finish_draining(&mut self) {
        if let Phase::Draining { outcome, .. } = &self.phase {
            self.close(outcome.clone());
        }
    }

    fn close(&mut self, outcome: Outcome) {
        if !matches!(self.phase, Phase::Closed) {
            self.phase = Phase::Closed;
            self.writing = None;
            self.actions.push_back(Action::Close(outcome));
        }
    }

    fn handshake_request(&self) -> Bytes {
        HandshakeRequest {
            agent_version: self.version.clone(),
            requested_client_actions: vec![RequestedClientAction {
                action_type: "SessionType".to_owned(),
                action_parameters: json!({ "SessionType": "Port", "Properties": self.properties }),
            }],
        }
        .to_payload()
    }

    fn send_state(&mut self, state: &str) {
        let body =
            AgentSessionState { schema_version: 1, session_state: state.to_owned(), session_id: self.session.clone() };
        let message = task::message(MessageKind::AgentSessionState, FLAGS_SINGLE, body.to_payload());
        self.transmits.push_back(message.encode());
    }

    fn send_stream(&mut self, payload_type: PayloadType, payload: Bytes, now: Instant) {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let flags = if sequence == 0 { FLAGS_FIRST } else { 0 };
        let message = task::message(MessageKind::OutputStreamData, flags, payload);
        let frame = Message { sequence, payload_type, ..message }.encode();
        if self.connected && !self.paused {
            self.transmits.push_back(frame.clone());
        }
        self.outbox.push(sequence, frame, now);
    }

    fn acknowledge(&mut self, message: &Message) {
        let body = Acknowledge {
            message_type: message.kind.as_str().to_owned(),
            message_id: message.id,
            sequence: message.sequence,
            is_sequential: true,
        };
        let acknowledge = task::message(MessageKind::Acknowledge, FLAGS_SINGLE, body.to_payload());
        if self.connected {
            self.transmits.push_back(acknowledge.encode());
        }
    }
}

#[cfg(test)]
mod tests;
