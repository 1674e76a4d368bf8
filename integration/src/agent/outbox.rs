//! What the agent has sent and not seen acknowledged.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::Bytes;

/// Beyond this the agent sends without keeping, so that a loss is final (agent: `OutgoingMessageBufferSize`).
const CAPACITY: usize = 100_000;
/// How often the front message is looked at (agent: `ResendSleepInterval`).
const TICK: Duration = Duration::from_millis(100);
/// Agent: `DefaultTransmissionTimeout`, `DefaultRoundTripTime`, `MaxTransmissionTimeout`, `ClockGranularity`.
const INITIAL_TIMEOUT: Duration = Duration::from_millis(200);
const INITIAL_ROUND_TRIP: Duration = Duration::from_millis(100);
const MAX_TIMEOUT: Duration = Duration::from_secs(1);
const GRANULARITY: Duration = Duration::from_millis(10);

/// The buffer, with the agent's rule that only its front is ever sent again.
#[derive(Debug)]
pub(super) struct Outbox {
    sent: VecDeque<Sent>,
    round_trip: RoundTrip,
    next_tick: Instant,
}

#[derive(Debug)]
struct Sent {
    sequence: i64,
    frame: Bytes,
    last: Instant,
}

impl Outbox {
    pub(super) fn new(now: Instant) -> Self {
        Self { sent: VecDeque::new(), round_trip: RoundTrip::default(), next_tick: now + TICK }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sent.is_empty()
    }

    pub(super) fn push(&mut self, sequence: i64, frame: Bytes, now: Instant) {
        if self.sent.len() < CAPACITY {
            self.sent.push_back(Sent { sequence, frame, last: now });
        }
    }

    pub(super) fn acknowledge(&mut self, sequence: i64, now: Instant) {
        if let Some(index) = self.sent.iter().position(|sent| sent.sequence == sequence)
            && let Some(sent) = self.sent.remove(index)
        {
            self.round_trip.sample(now.saturating_duration_since(sent.last));
        }
    }

    /// The front, when its tick has come and it has waited longer than the timeout.
    pub(super) fn resend(&mut self, now: Instant) -> Option<Bytes> {
        if now < self.next_tick {
            return None;
        }
        self.next_tick = now + TICK;
        let front = self.sent.front_mut()?;
        if now.saturating_duration_since(front.last) <= self.round_trip.timeout {
            return None;
        }
        front.last = now;
        Some(front.frame.clone())
    }

    pub(super) fn next_tick(&self) -> Option<Instant> {
        (!self.sent.is_empty()).then_some(self.next_tick)
    }
}

#[derive(Debug)]
struct RoundTrip {
    smoothed: Duration,
    variation: Duration,
    timeout: Duration,
}

impl Default for RoundTrip {
    fn default() -> Self {
        Self { smoothed: INITIAL_ROUND_TRIP, variation: Duration::ZERO, timeout: INITIAL_TIMEOUT }
    }
}

impl RoundTrip {
    /// The agent samples resent messages too.
    fn sample(&mut self, sample: Duration) {
        self.variation = self.variation.mul_f64(0.75) + self.smoothed.abs_diff(sample).mul_f64(0.25);
        self.smoothed = self.smoothed.mul_f64(0.875) + sample.mul_f64(0.125);
        self.timeout = (self.smoothed + (4 * self.variation).max(GRANULARITY)).min(MAX_TIMEOUT);
    }
}
