//! How long a message takes to leave: its size over the rate of the link, which the round trip of small messages does not
//! tell.
//!
//! A timeout that was learnt from keystrokes and login messages may be 10 ms above the round trip, while 16 KiB take 65 ms
//! to leave at 250 kB/s. Sent again after 10 ms, they take as long once more, and so does all that waits behind them.

use std::time::{Duration, Instant};

/// The slowest link that is reckoned with, in bytes a second: beyond it the round trip and the back-off have to do.
const SLOWEST: u64 = 16 << 10;
/// What the link carries beside each payload: message header, WebSocket, TLS and TCP.
const OVERHEAD: usize = 200;
/// A payload so many times as large as any that was acknowledged may take longer than was measured.
const FAR_LARGER: usize = 2;

/// The time in which the link takes a byte, as far as acknowledgements tell.
#[derive(Debug, Default)]
pub(super) struct SendTime {
    /// At most this, in nanoseconds.
    per_byte: Option<u64>,
    /// The largest payload that was acknowledged.
    largest: usize,
    last_answer: Option<Instant>,
}

impl SendTime {
    /// A message that was sent once, at `sent_at`, has been acknowledged. The link was busy with it since then, less the shortest
    /// round trip, or since the acknowledgement before.
    ///
    /// What is slower counts at once, what is faster little by little.
    pub(super) fn note(&mut self, payload: usize, sent_at: Instant, round_trip: Duration, now: Instant) {
        let under_way = now.saturating_duration_since(sent_at).saturating_sub(round_trip);
        let since_answer = self.last_answer.map_or(under_way, |last| now.saturating_duration_since(last));
        let busy = under_way.min(since_answer);
        let sample = per_byte(busy, payload);
        self.per_byte =
            Some(self.per_byte.map_or(sample, |known| if sample > known { sample } else { (known * 7 + sample) / 8 }));
    }

    /// A message has been acknowledged, however often it was sent.
    pub(super) fn note_answer(&mut self, payload: usize, now: Instant) {
        self.last_answer = Some(now);
        self.largest = self.largest.max(payload);
    }

    /// How long a payload takes at most.
    pub(super) fn of(&self, payload: usize) -> Duration {
        let bytes = bytes(payload);
        // Where losses left nothing to measure, the round trip of what is as large has to do.
        let is_known = payload <= self.largest.saturating_mul(FAR_LARGER);
        let per_byte = if is_known { self.per_byte.unwrap_or_default() } else { 1_000_000_000 / SLOWEST };
        Duration::from_nanos(per_byte.saturating_mul(bytes))
    }

    /// A new WebSocket, and perhaps another link.
    pub(super) fn restart(&mut self) {
        *self = Self::default();
    }
}

fn bytes(payload: usize) -> u64 {
    u64::try_from(payload.saturating_add(OVERHEAD)).unwrap_or(u64::MAX)
}

fn per_byte(busy: Duration, payload: usize) -> u64 {
    let nanos = u64::try_from(busy.as_nanos()).unwrap_or(u64::MAX) / bytes(payload);
    nanos.min(1_000_000_000 / SLOWEST)
}

#[cfg(test)]
mod tests {
    use super::{super::tests::start, *};

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn what_was_never_measured_may_take_as_long_as_on_the_slowest_link() {
        let mut time = SendTime::default();
        assert!(time.of(16 << 10) > Duration::from_secs(1));
        let now = start();
        time.note(100, now, MS, now + 2 * MS);
        time.note_answer(100, now + 2 * MS);
        assert!(time.of(200) < 5 * MS && time.of(16 << 10) > Duration::from_secs(1), "{time:?}");
    }

    #[test]
    fn a_slower_link_counts_at_once_and_a_faster_one_little_by_little() {
        let (mut time, mut now) = (SendTime::default(), start());
        let mut answer = |time: &mut SendTime, after: Duration| {
            let sent = now;
            now += after;
            time.note(16 << 10, sent, 4 * MS, now);
            time.note_answer(16 << 10, now);
        };
        answer(&mut time, 6 * MS);
        assert_eq!(time.of(16 << 10).as_millis(), 1);
        answer(&mut time, 69 * MS);
        assert!((60 * MS..=70 * MS).contains(&time.of(16 << 10)), "{time:?}");
        answer(&mut time, 6 * MS);
        assert!(time.of(16 << 10) > 50 * MS, "{time:?}");
        (0..50).for_each(|_| answer(&mut time, 6 * MS));
        assert!(time.of(16 << 10) < 10 * MS, "{time:?}");
    }

    #[test]
    fn a_stall_of_the_node_is_not_taken_for_a_link_without_measure() {
        let (mut time, now) = (SendTime::default(), start());
        time.note(100, now, MS, now + Duration::from_hours(1));
        time.note(usize::MAX, now, MS, now + Duration::MAX / 4);
        assert!(time.of(16 << 10) <= Duration::from_millis(1100), "{time:?}");
    }
}
