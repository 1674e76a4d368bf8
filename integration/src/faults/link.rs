//! The faulty link between two sockets.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    num::NonZeroU64,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::Faults;

/// One direction of a relay: messages go in, and come out late, twice, out of order or not at all. Pure.
#[derive(Debug)]
pub(crate) struct Link {
    random: Random,
    /// In the order of being due. Without faults nearly always empty.
    waiting: BinaryHeap<Reverse<Waiting>>,
    /// Due at once, in order: the path of a faultless link.
    due: VecDeque<Bytes>,
    count: u64,
    last_due: Option<Instant>,
    /// When the last byte of what was pushed is on the wire of a link with a rate.
    busy_until: Option<Instant>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Waiting {
    due: Instant,
    order: u64,
    message: Bytes,
}

impl Link {
    /// `direction` tells the two links of a session apart, so that they do not draw alike.
    pub(crate) fn new(seed: u64, direction: u64) -> Self {
        Self {
            random: Random(seed.wrapping_mul(2).wrapping_add(direction)),
            waiting: BinaryHeap::new(),
            due: VecDeque::new(),
            count: 0,
            last_due: None,
            busy_until: None,
        }
    }

    /// How many messages are on their way.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len() + self.due.len()
    }

    /// A message to relay under `faults`.
    pub(crate) fn push(&mut self, message: Bytes, faults: &Faults, now: Instant) {
        if self.random.chance(faults.loss) {
            return;
        }
        if self.random.chance(faults.duplicate) {
            self.schedule(message.clone(), faults, now);
        }
        self.schedule(message, faults, now);
    }

    /// The service's own last message: neither lost nor overtaking anything.
    pub(crate) fn push_last(&mut self, message: Bytes, faults: &Faults, now: Instant) {
        let latest = self.waiting.iter().map(|Reverse(waiting)| waiting.due).max();
        self.enqueue(message, latest.map_or(now + faults.delay, |latest| latest.max(now + faults.delay)), now);
    }

    /// The next message that is due.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<Bytes> {
        if let Some(message) = self.due.pop_front() {
            return Some(message);
        }
        match self.waiting.peek() {
            Some(Reverse(waiting)) if waiting.due <= now => self.waiting.pop().map(|Reverse(waiting)| waiting.message),
            _ => None,
        }
    }

    /// When there is room for a next message in front of a link with a rate; none for now.
    pub(crate) fn room_at(&self, faults: &Faults, now: Instant) -> Option<Instant> {
        let queue = serialization(faults.queue, faults.rate?);
        self.busy_until?.checked_sub(queue).filter(|moment| *moment > now)
    }

    /// When the next message is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.waiting.peek().map(|Reverse(waiting)| waiting.due)
    }

    fn schedule(&mut self, message: Bytes, faults: &Faults, now: Instant) {
        let sent = self.sent_at(message.len(), faults, now);
        if self.random.chance(faults.reorder) {
            self.enqueue(message, sent + faults.delay + faults.reorder_by, now);
            return;
        }
        let due = sent + faults.delay + faults.jitter.mul_f64(self.random.unit());
        let due = self.last_due.map_or(due, |last| last.max(due));
        self.last_due = Some(due);
        self.enqueue(message, due, now);
    }

    /// When the last byte of a message of `length` bytes is on the wire, behind all that were before it.
    fn sent_at(&mut self, length: usize, faults: &Faults, now: Instant) -> Instant {
        let Some(rate) = faults.rate else { return now };
        let sent = self.busy_until.map_or(now, |busy| busy.max(now)) + serialization(length, rate);
        self.busy_until = Some(sent);
        sent
    }

    fn enqueue(&mut self, message: Bytes, due: Instant, now: Instant) {
        if due <= now && self.waiting.is_empty() {
            self.due.push_back(message);
        } else {
            self.count += 1;
            self.waiting.push(Reverse(Waiting { due, order: self.count, message }));
        }
    }
}

/// How long `length` bytes take at `rate` bytes a second.
fn serialization(length: usize, rate: NonZeroU64) -> Duration {
    let nanos = u128::try_from(length).unwrap_or(u128::MAX).saturating_mul(1_000_000_000) / u128::from(rate.get());
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// The generator `SplitMix64`: small, seeded and good enough to decide what is lost.
#[derive(Debug)]
struct Random(u64);

impl Random {
    /// Uniform in `0.0..1.0`.
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit a double exactly")]
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Draws only where the outcome is open, so that a switch that is off does not shift the other draws.
    fn chance(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.unit() < probability
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNT: u8 = 200;

    fn relay(faults: &Faults) -> Vec<u8> {
        let start = Instant::now();
        let mut link = Link::new(faults.seed, 0);
        for number in 0..COUNT {
            link.push(Bytes::from(vec![number]), faults, start + Duration::from_millis(number.into()));
        }
        let end = start + Duration::from_mins(1);
        std::iter::from_fn(|| link.pop_due(end)).map(|message| message[0]).collect()
    }

    #[test]
    fn a_faultless_link_keeps_everything_in_order() {
        assert_eq!(relay(&Faults::default()), (0..COUNT).collect::<Vec<_>>());
    }

    #[test]
    fn delay_and_jitter_keep_the_order() {
        let faults =
            Faults { delay: Duration::from_millis(30), jitter: Duration::from_millis(20), ..Faults::default() };
        assert_eq!(relay(&faults), (0..COUNT).collect::<Vec<_>>());
    }

    #[test]
    fn a_delayed_message_is_not_due_before_its_time() {
        let faults = Faults { delay: Duration::from_millis(30), ..Faults::default() };
        let start = Instant::now();
        let mut link = Link::new(1, 0);
        link.push(Bytes::from_static(b"m"), &faults, start);
        assert_eq!(link.pop_due(start + Duration::from_millis(29)), None);
        assert_eq!(link.next_due(), Some(start + Duration::from_millis(30)));
        assert_eq!(link.pop_due(start + Duration::from_millis(30)), Some(Bytes::from_static(b"m")));
    }

    #[test]
    fn loss_drops_some_and_keeps_the_order_of_the_rest() {
        let received = relay(&Faults { loss: 0.2, ..Faults::default() });
        assert!((120..190).contains(&received.len()), "{}", received.len());
        assert!(received.is_sorted());
    }

    #[test]
    fn duplication_repeats_some_and_loses_none() {
        let mut received = relay(&Faults { duplicate: 0.2, ..Faults::default() });
        assert!(received.len() > usize::from(COUNT));
        received.dedup();
        assert_eq!(received, (0..COUNT).collect::<Vec<_>>());
    }

    #[test]
    fn reordering_changes_the_order_and_loses_none() {
        let mut received = relay(&Faults { reorder: 0.2, ..Faults::default() });
        assert!(!received.is_sorted());
        received.sort_unstable();
        assert_eq!(received, (0..COUNT).collect::<Vec<_>>());
    }

    #[test]
    fn a_link_with_a_rate_sends_one_message_after_the_other() {
        let faults = Faults { rate: NonZeroU64::new(1000), delay: Duration::from_millis(40), ..Faults::default() };
        let start = Instant::now();
        let mut link = Link::new(1, 0);
        link.push(Bytes::from(vec![0; 100]), &faults, start);
        link.push(Bytes::from(vec![1; 50]), &faults, start);
        assert_eq!(link.pop_due(start + Duration::from_millis(139)), None);
        assert_eq!(link.pop_due(start + Duration::from_millis(140)).map(|message| message.len()), Some(100));
        assert_eq!(link.next_due(), Some(start + Duration::from_millis(190)));
    }

    #[test]
    fn a_full_queue_says_when_it_has_room() {
        let faults = Faults { rate: NonZeroU64::new(1000), queue: 200, ..Faults::default() };
        let start = Instant::now();
        let mut link = Link::new(1, 0);
        link.push(Bytes::from(vec![0; 200]), &faults, start);
        assert_eq!(link.room_at(&faults, start), None);
        link.push(Bytes::from(vec![0; 300]), &faults, start);
        assert_eq!(link.room_at(&faults, start), Some(start + Duration::from_millis(300)));
        assert_eq!(link.room_at(&faults, start + Duration::from_millis(300)), None);
    }

    #[test]
    fn the_last_message_overtakes_nothing() {
        let faults = Faults { delay: Duration::from_millis(30), reorder: 0.5, ..Faults::default() };
        let start = Instant::now();
        let mut link = Link::new(7, 1);
        for number in 0..COUNT {
            link.push(Bytes::from(vec![number]), &faults, start);
        }
        link.push_last(Bytes::from_static(b"last"), &faults, start);
        let end = start + Duration::from_mins(1);
        assert_eq!(std::iter::from_fn(|| link.pop_due(end)).last(), Some(Bytes::from_static(b"last")));
    }
}
