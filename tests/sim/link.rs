//! One direction of the path.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::rng::Rng;

/// How a link treats frames. The default delivers each at once.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Profile {
    pub(crate) delay: Duration,
    /// Up to this is added to the delay. Frames still arrive in order.
    pub(crate) jitter: Duration,
    /// Frames lost, of 1000.
    pub(crate) loss: u64,
    /// Frames delivered twice, of 1000.
    pub(crate) duplication: u64,
    /// Frames overtaken by those behind them, of 1000.
    pub(crate) reordering: u64,
    /// Frames whose last byte is flipped, of 1000.
    pub(crate) damage: u64,
    /// Bytes a second; no limit if `None`. What exceeds it queues without bound.
    pub(crate) rate: Option<u32>,
}

#[derive(Debug, Default)]
pub(crate) struct Link {
    profile: Profile,
    /// By time of arrival, then by order of sending.
    in_transit: BTreeMap<(Instant, u64), Bytes>,
    sent: u64,
    pub(crate) lost: usize,
    /// When the last bit of what was sent has left.
    idle_at: Option<Instant>,
    last_arrival: Option<Instant>,
}

impl Link {
    pub(crate) fn new(profile: Profile) -> Self {
        Self { profile, ..Self::default() }
    }

    pub(crate) fn send(&mut self, frame: &Bytes, now: Instant, rng: &mut Rng) {
        let departure = self.departure(frame.len(), now);
        if rng.chance(self.profile.loss) {
            self.lost += 1;
            return;
        }
        let copies = 1 + u64::from(rng.chance(self.profile.duplication));
        for _ in 0..copies {
            let arrival = self.arrival(departure, rng);
            let frame = if rng.chance(self.profile.damage) { damaged(frame) } else { frame.clone() };
            self.sent += 1;
            self.in_transit.insert((arrival, self.sent), frame);
        }
    }

    fn departure(&mut self, length: usize, now: Instant) -> Instant {
        let Some(rate) = self.profile.rate else { return now };
        let length = u32::try_from(length).expect("a frame is small");
        let departure = self.idle_at.unwrap_or(now).max(now) + Duration::from_secs(1) * length / rate;
        self.idle_at = Some(departure);
        departure
    }

    fn arrival(&mut self, departure: Instant, rng: &mut Rng) -> Instant {
        let arrival = departure + self.profile.delay + rng.up_to(self.profile.jitter);
        if rng.chance(self.profile.reordering) {
            return arrival + rng.up_to(self.profile.delay + Duration::from_millis(5));
        }
        let arrival = self.last_arrival.map_or(arrival, |last| last.max(arrival));
        self.last_arrival = Some(arrival);
        arrival
    }

    pub(crate) fn next_arrival(&self) -> Option<Instant> {
        self.in_transit.first_key_value().map(|((arrival, _), _)| *arrival)
    }

    pub(crate) fn receive(&mut self, now: Instant) -> Option<Bytes> {
        let entry = self.in_transit.first_entry().filter(|entry| entry.key().0 <= now)?;
        Some(entry.remove())
    }

    /// What is in transit is lost.
    pub(crate) fn cut(&mut self) {
        self.in_transit.clear();
        self.idle_at = None;
    }
}

fn damaged(frame: &Bytes) -> Bytes {
    let mut frame = frame.to_vec();
    if let Some(last) = frame.last_mut() {
        *last = !*last;
    }
    frame.into()
}
