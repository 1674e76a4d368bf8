//! The switchboard: what the lab does wrong, and the faulty link between two sockets.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    time::{Duration, Instant},
};

use bytes::Bytes;

/// How a client's socket ends when the lab cuts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cut {
    /// Close code 1000 and the reason `Bye`, as the service does every hour.
    Bye,
    /// A TCP reset, without a word.
    Reset,
}

/// What the lab does wrong. The default is nothing.
///
/// Delay, jitter, loss, duplication and reordering apply to every binary message that the gateway relays, data and
/// acknowledgements alike, in both directions. They are drawn from `seed`, so a run can be repeated.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Faults {
    /// One-way delay of every relayed message. Default zero.
    pub delay: Duration,
    /// Most that is added to `delay`, drawn anew for each message; the order is kept. Default zero.
    pub jitter: Duration,
    /// Probability, 0 to 1, that a message is dropped. Default 0.
    pub loss: f64,
    /// Probability, 0 to 1, that a message is relayed twice. Default 0.
    pub duplicate: f64,
    /// Probability, 0 to 1, that a message is held back by `reorder_by`, so that later ones overtake it. Default 0.
    pub reorder: f64,
    /// How long a message that is to be overtaken is held back. Default 5 ms.
    pub reorder_by: Duration,
    /// Seed of all the draws. Default 1.
    pub seed: u64,
    /// How [`cut_after_messages`](Self::cut_after_messages) and [`cut_every`](Self::cut_every) end the socket. Default
    /// [`Cut::Bye`].
    pub cut: Cut,
    /// Cuts the client's socket once in each session, after this many messages relayed in both directions together.
    /// Default never.
    pub cut_after_messages: Option<u64>,
    /// Cuts each client socket, the resumed ones too, this long after it was opened. Default never.
    pub cut_every: Option<Duration>,
    /// ResumeSession answers as it does for a session that is over: without a token. Default off.
    pub refuse_resume: bool,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            loss: 0.0,
            duplicate: 0.0,
            reorder: 0.0,
            reorder_by: Duration::from_millis(5),
            seed: 1,
            cut: Cut::Bye,
            cut_after_messages: None,
            cut_every: None,
            refuse_resume: false,
        }
    }
}

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

    /// When the next message is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.waiting.peek().map(|Reverse(waiting)| waiting.due)
    }

    fn schedule(&mut self, message: Bytes, faults: &Faults, now: Instant) {
        if self.random.chance(faults.reorder) {
            self.enqueue(message, now + faults.delay + faults.reorder_by, now);
            return;
        }
        let due = now + faults.delay + faults.jitter.mul_f64(self.random.unit());
        let due = self.last_due.map_or(due, |last| last.max(due));
        self.last_due = Some(due);
        self.enqueue(message, due, now);
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
