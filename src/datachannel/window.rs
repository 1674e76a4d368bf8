//! How many bytes may be written and not acknowledged: what the path holds, and a short queue.
//!
//! A window smaller than rate × round trip leaves the path idle; every byte beyond it waits in a queue somewhere, and
//! whatever is written next waits behind it. So the window is measured, in the manner of BBR:
//!
//! ```text
//!   window = rate × (shortest round trip + TARGET_QUEUE)     at least two messages, at most `max_in_flight`
//!   message = window / 4                                      at least 4 KiB, at most `max_payload`
//! ```
//!
//! A message takes as long to leave as everything before it, so on a slow link messages are small too: two of 64 KiB would
//! be two seconds of a link of 60 kB/s.
//!
//! The *rate* is that of acknowledged bytes, the highest of the last few rounds. A round lasts until something sent
//! after its start is acknowledged, so a stall of the node makes one long round and no sudden collapse. Rounds in which
//! the writer did not use the window say only that the path can do at least so much.
//!
//! *At the start* nothing is known, and the window grows by what is acknowledged,
//! doubling each round trip, until a queue shows, the rate no longer grows, or what is written waits for its pace.
//!
//! *The shortest round trip* is forgotten when nothing has confirmed it for a while, since the path may have become
//! longer. While a queue stands nobody can tell, so the window is then cut to what the path holds until one message has
//! seen it without a queue.
//!
//! Losses do not count: on this path they come from broken WebSockets and not from full queues.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::outbox::Acknowledged;

/// Queueing delay that is paid for never leaving the path idle. A keystroke behind a bulk upload waits so much longer.
const TARGET_QUEUE: Duration = Duration::from_millis(100);
/// Window before anything is known: half a second of a link of 60 kB/s.
const INITIAL: u64 = 32 << 10;
/// Messages that a window holds at least, so that the path is busy while one of them is acknowledged.
const MESSAGES: u64 = 4;
/// Messages are not made smaller than this: their headers would cost more than a twentieth.
const SMALLEST_MESSAGE: u64 = 4 << 10;
/// Rounds whose rates count.
const ROUNDS: usize = 4;
/// The least a round lasts, so that acknowledgements that arrive in batches give a rate.
const SHORTEST_ROUND: Duration = Duration::from_millis(20);
/// Rounds without growth of a quarter after which the rate counts as that of the path.
const ROUNDS_WITHOUT_GROWTH: u32 = 3;
/// How long the shortest round trip counts without being confirmed.
const ROUND_TRIP_LIFE: Duration = Duration::from_secs(10);

/// Why no more is in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    /// The writer has no more.
    Writer,
    /// More may not be written.
    Window,
    /// What is written may not leave yet.
    Pace,
}

#[derive(Debug)]
pub(super) struct Window {
    min: u64,
    max_payload: u64,
    max: u64,
    bytes: u64,
    /// Bytes a second of the last rounds.
    rates: VecDeque<u64>,
    round: Option<Round>,
    shortest: Option<Shortest>,
    start: Option<Start>,
}

#[derive(Debug)]
struct Round {
    since: Instant,
    bytes: u64,
    /// The writer has used the window all the time.
    is_limited: bool,
}

#[derive(Debug, Clone, Copy)]
struct Shortest {
    round_trip: Duration,
    confirmed_at: Instant,
    /// Since when the queue is drained to measure anew.
    draining_since: Option<Instant>,
}

/// The search for the path's rate.
#[derive(Debug, Default)]
struct Start {
    best: u64,
    rounds_without_growth: u32,
}

impl Window {
    pub(super) fn new(max_payload: usize, max_in_flight: usize) -> Self {
        let max = max_in_flight as u64;
        let max_payload = max_payload as u64;
        let min = (2 * max_payload.min(SMALLEST_MESSAGE)).min(max);
        let bytes = INITIAL.clamp(min, max);
        let (rates, start) = (VecDeque::with_capacity(ROUNDS), Some(Start::default()));
        Self { min, max_payload, max, bytes, rates, round: None, shortest: None, start }
    }

    pub(super) fn bytes(&self) -> usize {
        usize::try_from(self.bytes).unwrap_or(usize::MAX)
    }

    /// The largest payload to put into one message.
    pub(super) fn message(&self) -> usize {
        let bytes = (self.bytes / MESSAGES).max(SMALLEST_MESSAGE).min(self.max_payload);
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    /// A new WebSocket, and perhaps another path: the window stays until that is measured.
    pub(super) fn restart(&mut self) {
        self.rates.clear();
        (self.round, self.shortest) = (None, None);
    }

    pub(super) fn acknowledge(&mut self, acked: Acknowledged, limit: Limit, now: Instant) {
        let is_limited = limit != Limit::Writer;
        let sample = acked.is_sample.then(|| now.saturating_duration_since(acked.sent_at));
        if let Some(sample) = sample {
            self.note_round_trip(sample, acked.sent_at, now);
        }
        if limit == Limit::Pace || sample.is_some_and(|sample| self.queue_in(sample) > TARGET_QUEUE) {
            self.start = None;
        }
        if self.start.is_some() && is_limited {
            self.bytes = self.bytes.saturating_add(acked.payload as u64).min(self.max);
        }
        let Some(round) = &mut self.round else {
            self.round = Some(Round { since: now, bytes: 0, is_limited: true });
            return;
        };
        round.bytes += acked.payload as u64;
        round.is_limited &= is_limited;
        let lasted = now.saturating_duration_since(round.since);
        if acked.sent_at >= round.since && lasted >= SHORTEST_ROUND {
            self.end_round(lasted, sample, now);
        }
        self.follow();
    }

    /// Nothing is in flight: what follows says nothing about the time until now.
    pub(super) fn note_idle(&mut self) {
        self.round = None;
    }

    fn end_round(&mut self, lasted: Duration, sample: Option<Duration>, now: Instant) {
        let Some(round) = self.round.replace(Round { since: now, bytes: 0, is_limited: true }) else { return };
        let rate = per_second(round.bytes, lasted);
        if round.is_limited || rate > self.rate() {
            if self.rates.len() == ROUNDS {
                self.rates.pop_front();
            }
            self.rates.push_back(rate);
        }
        let has_queue = sample.is_some_and(|sample| self.queue_in(sample) > TARGET_QUEUE / 2);
        if round.is_limited && self.start.as_mut().is_some_and(|start| start.is_over(rate, has_queue)) {
            self.start = None;
        }
    }

    /// How long a message has waited in queues.
    fn queue_in(&self, sample: Duration) -> Duration {
        self.shortest.map_or(Duration::ZERO, |shortest| sample.saturating_sub(shortest.round_trip))
    }

    fn note_round_trip(&mut self, sample: Duration, sent_at: Instant, now: Instant) {
        let shortest =
            self.shortest.get_or_insert(Shortest { round_trip: sample, confirmed_at: now, draining_since: None });
        if sample <= shortest.round_trip || shortest.draining_since.is_some_and(|since| sent_at > since) {
            *shortest = Shortest { round_trip: sample, confirmed_at: now, draining_since: None };
        } else if now.saturating_duration_since(shortest.confirmed_at) > ROUND_TRIP_LIFE {
            shortest.draining_since.get_or_insert(now);
        }
    }

    /// Sets the window by what is known of the path.
    fn follow(&mut self) {
        let (None, Some(shortest), false) = (&self.start, self.shortest, self.rates.is_empty()) else { return };
        let queue = if shortest.draining_since.is_some() { Duration::ZERO } else { TARGET_QUEUE };
        self.bytes = carried(self.rate(), shortest.round_trip + queue).clamp(self.min, self.max);
    }

    fn rate(&self) -> u64 {
        self.rates.iter().copied().max().unwrap_or_default()
    }
}

impl Start {
    fn is_over(&mut self, rate: u64, has_queue: bool) -> bool {
        if rate > self.best + self.best / 4 {
            (self.best, self.rounds_without_growth) = (rate, 0);
        } else {
            self.rounds_without_growth += 1;
        }
        has_queue || self.rounds_without_growth >= ROUNDS_WITHOUT_GROWTH
    }
}

fn per_second(bytes: u64, time: Duration) -> u64 {
    let rate = u128::from(bytes) * 1_000_000_000 / time.as_nanos().max(1);
    u64::try_from(rate).unwrap_or(u64::MAX)
}

fn carried(rate: u64, time: Duration) -> u64 {
    u64::try_from(u128::from(rate) * time.as_nanos() / 1_000_000_000).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::{super::tests::start, *};

    const MS: Duration = Duration::from_millis(1);
    const MESSAGE: usize = 16 << 10;
    const MAX: usize = 8 << 20;

    /// A sender that always uses the window, and a path with a queue.
    struct Path {
        window: Window,
        now: Instant,
        round_trip: Duration,
        /// Bytes a second.
        rate: u32,
        /// When each message was sent, and when it will be acknowledged.
        in_flight: VecDeque<(Instant, Instant)>,
        idle_at: Instant,
    }

    impl Path {
        fn new(rate: u32, round_trip: Duration) -> Self {
            let (window, now) = (Window::new(MESSAGE, MAX), start());
            Self { window, now, round_trip, rate, in_flight: VecDeque::new(), idle_at: now }
        }

        fn run(&mut self, time: Duration) {
            let end = self.now + time;
            loop {
                while (self.in_flight.len() + 1) * MESSAGE <= self.window.bytes() {
                    let message = Duration::from_secs(1) * u32::try_from(MESSAGE).unwrap() / self.rate;
                    self.idle_at = self.idle_at.max(self.now) + message;
                    self.in_flight.push_back((self.now, self.idle_at + self.round_trip));
                }
                let Some((sent_at, at)) = self.in_flight.front().copied().filter(|(_, at)| *at <= end) else { break };
                self.in_flight.pop_front();
                self.now = at;
                let acked = Acknowledged { payload: MESSAGE, sent_at, is_sample: true };
                self.window.acknowledge(acked, Limit::Window, at);
            }
            self.now = end;
        }

        /// How long what is sent next waits in the path's queue.
        fn queue(&self) -> Duration {
            self.idle_at.saturating_duration_since(self.now)
        }
    }

    #[test]
    fn the_window_comes_to_what_the_path_holds_and_a_short_queue() {
        for (rate, round_trip) in [(20_000_000, 200 * MS), (1_000_000, 40 * MS), (50_000_000, MS), (200_000, 80 * MS)] {
            let mut path = Path::new(rate, round_trip);
            path.run(Duration::from_secs(5));
            let message = Duration::from_secs(1) * u32::try_from(MESSAGE).unwrap() / rate;
            for _ in 0..100 {
                path.run(37 * MS);
                let queue = path.queue();
                assert!(!queue.is_zero(), "{rate} idle, {:?}", path.window);
                assert!(queue <= TARGET_QUEUE + 2 * message, "{rate} {queue:?} {:?}", path.window);
            }
        }
    }

    #[test]
    fn a_path_that_became_slower_or_longer_is_followed() {
        let mut path = Path::new(10_000_000, 40 * MS);
        path.run(Duration::from_secs(5));
        path.rate = 1_000_000;
        path.run(Duration::from_secs(12));
        assert!(path.queue() < 150 * MS, "{:?}", path.queue());
        (path.rate, path.round_trip) = (10_000_000, 150 * MS);
        path.run(Duration::from_secs(25));
        let bytes = path.window.bytes();
        assert!((2_000_000..3_000_000).contains(&bytes), "{:?}", path.window);
    }

    #[test]
    fn a_stall_does_not_make_the_window_collapse() {
        let mut path = Path::new(5_000_000, 40 * MS);
        path.run(Duration::from_secs(5));
        let before = path.window.bytes();
        let stall = Duration::from_secs(20);
        path.in_flight.iter_mut().for_each(|(_, at)| *at += stall);
        path.idle_at += stall;
        path.run(stall + Duration::from_secs(2));
        let after = path.window.bytes();
        assert!(after >= before / 2 && after <= before * 2, "{before} became {after}");
    }

    #[test]
    fn the_window_keeps_to_its_limits() {
        let mut path = Path::new(1_000_000_000, 200 * MS);
        path.run(Duration::from_secs(5));
        assert_eq!(path.window.bytes(), MAX);
        let mut path = Path::new(10_000, 20 * MS);
        path.run(Duration::from_mins(2));
        assert!((MESSAGE / 2..3 * MESSAGE).contains(&path.window.bytes()), "{:?}", path.window);
        assert_eq!(Window::new(MESSAGE, MESSAGE).bytes(), MESSAGE);
    }

    #[test]
    fn a_writer_that_does_not_use_the_window_leaves_it_alone() {
        let (mut window, mut now) = (Window::new(MESSAGE, MAX), start());
        for _ in 0..1000 {
            window.note_idle();
            let acked = Acknowledged { payload: 50, sent_at: now, is_sample: true };
            now += 40 * MS;
            window.acknowledge(acked, Limit::Writer, now);
        }
        assert_eq!(window.bytes() as u64, INITIAL);
    }
}
