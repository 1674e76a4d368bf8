//! What the agent sent: the next message expected, those that came too early, the bytes ready for the reader, and the
//! acknowledgements owed.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use uuid::Uuid;

use super::config::{MAX_ACKS_OWED, MAX_ACKS_REMEMBERED, MAX_INBOX_MESSAGES, MESSAGE_COST};
use crate::wire::{Message, PayloadType};

/// The payload of one stream message.
pub(super) type Payload = (PayloadType, Bytes);

/// An acknowledgement to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AckOwed {
    pub(super) sequence: i64,
    pub(super) id: Uuid,
}

/// What became of a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// It is the one expected. [`Inbox::next_in_order`] gives what it made deliverable.
    Expected(Payload),
    /// It is kept until its predecessors are there.
    Early,
    /// It was there before.
    Repeated,
    /// There is no room. It is not acknowledged, so the agent will send it again.
    Refused,
}

/// What a payload takes to be kept: the smallest have more around them than in them.
fn cost(payload: &Bytes) -> usize {
    payload.len() + MESSAGE_COST
}

/// Everything kept is acknowledged when it arrives, whether or not the reader has taken it.
#[derive(Debug)]
pub(super) struct Inbox {
    max_bytes: usize,
    expected: i64,
    early: BTreeMap<i64, Payload>,
    ready: VecDeque<Bytes>,
    /// What `early` and `ready` hold.
    held: usize,
    acks: VecDeque<AckOwed>,
    /// The acknowledgements sent last: those on their way when a WebSocket breaks are lost.
    acks_sent: VecDeque<AckOwed>,
}

impl Inbox {
    pub(super) fn new(max_bytes: usize) -> Self {
        let (early, ready) = (BTreeMap::new(), VecDeque::new());
        Self { max_bytes, expected: 0, early, ready, held: 0, acks: VecDeque::new(), acks_sent: VecDeque::new() }
    }

    pub(super) fn accept(&mut self, message: &Message) -> Arrival {
        let sequence = message.sequence;
        let repeated = sequence < self.expected || self.early.contains_key(&sequence);
        let is_expected = sequence == self.expected;
        if self.acks.len() >= MAX_ACKS_OWED || !(repeated || self.has_room_for(is_expected)) {
            return Arrival::Refused;
        }
        self.acks.push_back(AckOwed { sequence, id: message.id });
        if repeated {
            return Arrival::Repeated;
        }
        // A copy: the payload is a slice of its frame, and frames share the buffer that the socket was read into. One byte
        // would keep all of that, whatever the bound counts.
        let payload = (message.payload_type, Bytes::copy_from_slice(&message.payload));
        if is_expected {
            self.expected += 1;
            Arrival::Expected(payload)
        } else {
            self.held += cost(&payload.1);
            self.early.insert(sequence, payload);
            Arrival::Early
        }
    }

    /// The message expected is let in even above the bound when the reader has nothing left to read: nothing else
    /// could ever make room.
    fn has_room_for(&self, is_expected: bool) -> bool {
        !self.is_over_bound() || (is_expected && self.ready.is_empty())
    }

    fn is_over_bound(&self) -> bool {
        self.held >= self.max_bytes || self.early.len() + self.ready.len() >= MAX_INBOX_MESSAGES
    }

    /// The next message that an arrival has made deliverable.
    pub(super) fn next_in_order(&mut self) -> Option<Payload> {
        let payload = self.early.remove(&self.expected)?;
        self.expected += 1;
        self.held -= cost(&payload.1);
        Some(payload)
    }

    /// Bytes for the reader. An empty payload is nothing to read.
    pub(super) fn push_ready(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.held += cost(&bytes);
            self.ready.push_back(bytes);
        }
    }

    pub(super) fn read(&mut self) -> Option<Bytes> {
        let bytes = self.ready.pop_front()?;
        self.held -= cost(&bytes);
        Some(bytes)
    }

    /// Whether reading would make room that is needed.
    pub(super) fn is_full(&self) -> bool {
        self.is_over_bound() && !self.ready.is_empty()
    }

    /// Whether a message is missing that later ones wait for.
    pub(super) fn has_gap(&self) -> bool {
        !self.early.is_empty()
    }

    pub(super) fn next_ack(&mut self) -> Option<AckOwed> {
        let ack = self.acks.pop_front()?;
        if self.acks_sent.len() == MAX_ACKS_REMEMBERED {
            self.acks_sent.pop_front();
        }
        self.acks_sent.push_back(ack);
        Some(ack)
    }

    pub(super) fn owes_acks(&self) -> bool {
        !self.acks.is_empty()
    }

    /// After a reconnect: what was acknowledged last is to be acknowledged again. Returns how many that are.
    pub(super) fn repeat_acks(&mut self) -> usize {
        let repeated = self.acks_sent.len();
        self.acks_sent.append(&mut self.acks);
        std::mem::swap(&mut self.acks, &mut self.acks_sent);
        repeated
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::wire::MessageKind;

    fn message(sequence: i64, payload: &'static [u8]) -> Message {
        Message {
            kind: MessageKind::OutputStreamData,
            created_millis: 1,
            sequence,
            flags: 0,
            id: Uuid::from_u128(u128::from(sequence.unsigned_abs())),
            payload_type: PayloadType::Output,
            payload: Bytes::from_static(payload),
        }
    }

    fn acks(inbox: &mut Inbox) -> Vec<i64> {
        std::iter::from_fn(|| inbox.next_ack()).map(|ack| ack.sequence).collect()
    }

    fn take_in(inbox: &mut Inbox, message: &Message) -> Arrival {
        let arrival = inbox.accept(message);
        if let Arrival::Expected((_, bytes)) = &arrival {
            inbox.push_ready(bytes.clone());
            while let Some((_, bytes)) = inbox.next_in_order() {
                inbox.push_ready(bytes);
            }
        }
        arrival
    }

    fn read_all(inbox: &mut Inbox) -> Vec<u8> {
        std::iter::from_fn(|| inbox.read()).flatten().collect()
    }

    #[test]
    fn early_messages_are_acknowledged_at_once_and_read_in_order() {
        let mut inbox = Inbox::new(1000);
        assert_eq!(take_in(&mut inbox, &message(2, b"c")), Arrival::Early);
        assert_eq!(take_in(&mut inbox, &message(1, b"b")), Arrival::Early);
        assert_eq!(read_all(&mut inbox), b"");
        assert!(inbox.has_gap());
        take_in(&mut inbox, &message(0, b"a"));
        assert!(!inbox.has_gap());
        assert_eq!(read_all(&mut inbox), b"abc");
        assert_eq!(acks(&mut inbox), [2, 1, 0]);
    }

    #[test]
    fn a_repeated_message_is_acknowledged_again_and_read_once() {
        let mut inbox = Inbox::new(1000);
        take_in(&mut inbox, &message(0, b"a"));
        take_in(&mut inbox, &message(2, b"c"));
        assert_eq!(take_in(&mut inbox, &message(0, b"a")), Arrival::Repeated);
        assert_eq!(take_in(&mut inbox, &message(2, b"c")), Arrival::Repeated);
        assert_eq!(take_in(&mut inbox, &message(-1, b"x")), Arrival::Repeated);
        take_in(&mut inbox, &message(1, b"b"));
        assert_eq!(read_all(&mut inbox), b"abc");
        assert_eq!(acks(&mut inbox), [0, 2, 0, 2, -1, 1]);
    }

    #[test]
    fn beyond_its_bound_a_message_is_neither_kept_nor_acknowledged() {
        let mut inbox = Inbox::new(MESSAGE_COST + 2);
        take_in(&mut inbox, &message(0, b"aa"));
        assert!(inbox.is_full());
        assert_eq!(take_in(&mut inbox, &message(1, b"b")), Arrival::Refused);
        assert_eq!(acks(&mut inbox), [0]);
        assert_eq!(read_all(&mut inbox), b"aa");
        assert!(!inbox.is_full());
        take_in(&mut inbox, &message(1, b"b"));
        assert_eq!(read_all(&mut inbox), b"b");
    }

    #[test]
    fn the_missing_message_is_let_in_when_only_it_can_make_room() {
        let mut inbox = Inbox::new(MESSAGE_COST + 2);
        take_in(&mut inbox, &message(1, b"bb"));
        assert_eq!(take_in(&mut inbox, &message(2, b"c")), Arrival::Refused);
        assert!(!inbox.is_full());
        take_in(&mut inbox, &message(0, b"aa"));
        assert_eq!(read_all(&mut inbox), b"aabb");
    }

    #[test]
    fn a_hundred_thousand_early_messages_find_room() {
        let mut inbox = Inbox::new(128 << 20);
        for sequence in 1..=100_000 {
            assert_eq!(inbox.accept(&message(sequence, b"x")), Arrival::Early);
        }
        for sequence in 100_001..=200_000 {
            inbox.accept(&message(sequence, b"x"));
        }
        assert_eq!(inbox.accept(&message(200_001, b"x")), Arrival::Refused);
        assert!(inbox.early.len() <= MAX_INBOX_MESSAGES && inbox.acks.len() <= MAX_ACKS_OWED);
    }

    /// A frame that is counted as long as anything keeps a part of it.
    struct Counted(Vec<u8>, Arc<AtomicUsize>);

    impl AsRef<[u8]> for Counted {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }

    impl Drop for Counted {
        fn drop(&mut self) {
            self.1.fetch_sub(self.0.len(), Ordering::Relaxed);
        }
    }

    #[test]
    fn no_frame_is_kept_for_the_sake_of_the_byte_it_carries() {
        let held = Arc::new(AtomicUsize::new(0));
        let mut inbox = Inbox::new(1 << 20);
        let mut kept = 0;
        // In order first, then early for ever.
        for sequence in (0..100).chain(101..20_000) {
            held.fetch_add(64 << 10, Ordering::Relaxed);
            let frame = Bytes::from_owner(Counted(vec![b'x'; 64 << 10], Arc::clone(&held)));
            let arrival = take_in(&mut inbox, &Message { payload: frame.slice(..1), ..message(sequence, b"") });
            kept += usize::from(arrival != Arrival::Refused);
        }
        assert_eq!(held.load(Ordering::Relaxed), 0);
        assert!((100..=(1 << 20) / MESSAGE_COST).contains(&kept), "{kept}");
    }

    #[test]
    fn after_a_reconnect_the_last_acknowledgements_are_owed_again_in_front() {
        let mut inbox = Inbox::new(1 << 20);
        assert_eq!(inbox.repeat_acks(), 0);
        (0..300).for_each(|sequence| drop(take_in(&mut inbox, &message(sequence, b"x"))));
        assert_eq!(acks(&mut inbox).len(), 300);
        take_in(&mut inbox, &message(300, b"x"));
        assert_eq!(inbox.repeat_acks(), MAX_ACKS_REMEMBERED);
        let first = 300 - i64::try_from(MAX_ACKS_REMEMBERED).unwrap();
        assert_eq!(acks(&mut inbox), (first..=300).collect::<Vec<_>>());
    }

    #[test]
    fn an_empty_payload_takes_its_number_but_is_nothing_to_read() {
        let mut inbox = Inbox::new(1000);
        take_in(&mut inbox, &message(0, b""));
        take_in(&mut inbox, &message(1, b"b"));
        assert_eq!(inbox.read().as_deref(), Some(b"b".as_slice()));
    }
}
