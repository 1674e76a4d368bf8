//! What must hold at every step, seen from the wire.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use bytes::Bytes;
use ssmssh::{
    datachannel::{Config, DataChannel, Transmit},
    wire::{Acknowledge, Body, Message, MessageKind, PayloadType},
};

use crate::agent::ensure;

/// The handshake's response and the flag do not wait for the window.
const BESIDE_THE_WINDOW: usize = 1024;
/// After this the agent counts as ready even if it has not sent anything.
const HOLD_OFF: Duration = Duration::from_millis(30);
/// More frames than this without time going on is a busy loop.
const MOST_STEPS_AT_ONCE: u32 = 100_000;

#[derive(Default)]
pub(crate) struct Watch {
    max_in_flight: usize,
    max_inbox: usize,
    sent: HashMap<i64, Bytes>,
    acknowledged: HashSet<i64>,
    /// Lengths of the stream messages that have arrived.
    received: HashMap<i64, usize>,
    /// Bytes of the stream messages that the client has acknowledged.
    accepted: usize,
    accepted_numbers: HashSet<i64>,
    is_agent_ready: bool,
    handshake_complete_at: Option<Instant>,
    at: Option<Instant>,
    steps_at_once: u32,
    /// Frames in a second and at once, if they are limited.
    pace: Option<(f64, f64)>,
    /// Frames sent beyond what the rate allowed, and when that was counted last.
    ahead: f64,
    ahead_at: Option<Instant>,
    pub(crate) resent: usize,
}

impl Watch {
    pub(crate) fn new(config: &Config) -> Self {
        let Config { max_in_flight, max_inbox, .. } = *config;
        let pace = config.max_frames_per_second.map(|rate| (f64::from(rate.get()), f64::from(config.burst)));
        Self { max_in_flight, max_inbox, pace, ..Self::default() }
    }

    pub(crate) fn client_receives(&mut self, frame: &Bytes, now: Instant) {
        let Ok(message) = Message::decode(frame.clone()) else { return };
        match message.kind {
            MessageKind::Acknowledge => {
                self.acknowledged.extend(Acknowledge::from_json(&message.payload).map(|ack| ack.sequence));
            }
            MessageKind::OutputStreamData => {
                self.is_agent_ready |= message.payload_type == PayloadType::Output;
                if message.payload_type == PayloadType::HandshakeComplete {
                    self.handshake_complete_at.get_or_insert(now);
                }
                self.received.insert(message.sequence, message.payload.len());
            }
            _ => {}
        }
    }

    pub(crate) fn client_sends(&mut self, transmit: &Transmit, now: Instant) -> Result<(), String> {
        self.check_pace(now)?;
        let Transmit::Binary(frame) = transmit else { return Ok(()) };
        let message = Message::decode(frame.clone()).map_err(|error| error.to_string())?;
        match message.kind {
            MessageKind::InputStreamData => {
                self.check_safe_start(&message, now)?;
                self.client_sends_data(message.sequence, frame)
            }
            MessageKind::Acknowledge => self.client_acknowledges(&message),
            other => Err(format!("the client sent {}", other.as_str())),
        }
    }

    /// In no stretch of time leave more frames than the burst and the rate allow.
    fn check_pace(&mut self, now: Instant) -> Result<(), String> {
        let Some((rate, burst)) = self.pace else { return Ok(()) };
        let passed = self.ahead_at.map_or(0.0, |at| (now - at).as_secs_f64());
        self.ahead = (self.ahead - rate * passed).max(0.0) + 1.0;
        self.ahead_at = Some(now);
        ensure(self.ahead <= burst + 1e-3, || format!("{} frames at once", self.ahead))
    }

    fn check_safe_start(&self, message: &Message, now: Instant) -> Result<(), String> {
        let waited = self.handshake_complete_at.is_some_and(|at| at + HOLD_OFF <= now);
        let is_safe = message.payload_type == PayloadType::HandshakeResponse || self.is_agent_ready || waited;
        ensure(is_safe, || format!("{:?} was sent when the agent may not be ready", message.payload_type))
    }

    fn client_sends_data(&mut self, sequence: i64, frame: &Bytes) -> Result<(), String> {
        ensure(!self.acknowledged.contains(&sequence), || format!("{sequence} was acknowledged and is sent again"))?;
        if let Some(first) = self.sent.get(&sequence) {
            self.resent += 1;
            return ensure(first == frame, || format!("{sequence} was sent again in another form"));
        }
        let next = i64::try_from(self.sent.len()).expect("a run is short");
        ensure(sequence == next, || format!("{sequence} was sent where {next} was due"))?;
        self.sent.insert(sequence, frame.clone());
        Ok(())
    }

    fn client_acknowledges(&mut self, message: &Message) -> Result<(), String> {
        let sequence = Acknowledge::from_json(&message.payload).map_err(|error| error.to_string())?.sequence;
        let length = self.received.get(&sequence).ok_or_else(|| format!("{sequence} acknowledged, not received"))?;
        if self.accepted_numbers.insert(sequence) {
            self.accepted += length;
        }
        Ok(())
    }

    pub(crate) fn after_drain(&mut self, channel: &DataChannel, read: usize, now: Instant) -> Result<(), String> {
        let in_flight = channel.stats().in_flight;
        ensure(in_flight <= self.max_in_flight + BESIDE_THE_WINDOW, || format!("{in_flight} bytes are in flight"))?;
        let deadline = channel.poll_timeout();
        ensure(deadline.is_none_or(|deadline| deadline > now), || "the next deadline is not in the future".into())?;
        let kept = self.accepted.saturating_sub(read);
        ensure(kept <= self.max_inbox + (64 << 10), || format!("{kept} bytes are kept for the reader"))?;
        self.steps_at_once = if self.at == Some(now) { self.steps_at_once + 1 } else { 0 };
        self.at = Some(now);
        ensure(self.steps_at_once < MOST_STEPS_AT_ONCE, || "time does not go on".into())
    }
}
