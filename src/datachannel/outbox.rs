//! Messages sent and not acknowledged, and which of them to send again, when.
//!
//! An acknowledgement names one message, and comes when the agent has stored or processed it. So there are two signs of
//! a loss, as in RFC 9002:
//!
//! - *A later transmission has arrived.* Then about one round trip after its own transmission a message counts as lost.
//! - *Silence.* When nothing was acknowledged for the retransmission timeout, the oldest message is sent again as a
//!   probe, and with it the one whose last transmission is the longest ago. The timeout doubles until something is
//!   acknowledged. An acknowledged probe says nothing about the others, which may all be on their way behind a reader
//!   that stalls. Only when silence follows again are they probed too, twice as many each time.
//!
//! A timer of its own for each message would do worse: behind a queue longer than the timeout, every message would be
//! sent again while the first copies were still on their way.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    mem,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{rtt::RttEstimator, send_time::SendTime};

/// Between probes, and between transmissions of one message, unless the round trip is longer.
const MAX_BACK_OFF: Duration = Duration::from_secs(1);
/// Transmissions after which a message counts as acknowledged, where the agent may have lost an acknowledgement for
/// good: that every one of so many was lost, and later ones were not, is the less likely story.
const ENOUGH_FOR_OLD_AGENTS: u32 = 12;
/// The agent leaves the first bytes unacknowledged while it connects to its port, which takes less than this.
const FIRST_DATA_TIMEOUT: Duration = Duration::from_millis(30);

/// Payloads that every service takes: the official client never sends larger ones.
const ALWAYS_TAKEN: usize = 1 << 10;

/// A payload more than so many times as large as any that was acknowledged may be more than the service takes.
const FAR_LARGER: usize = 2;

#[derive(Debug)]
struct Sent {
    frame: Bytes,
    payload: usize,
    is_data: bool,
    transmissions: u32,
    /// The number of its last transmission, among all.
    transmission: u64,
    at: Instant,
    place: Place,
}

/// A message that needs no more care.
#[derive(Debug, Clone, Copy)]
pub(super) struct Acknowledged {
    pub(super) payload: usize,
    /// When it was sent last.
    pub(super) sent_at: Instant,
    /// It was sent once only, so that this acknowledgement tells the round trip.
    pub(super) is_sample: bool,
}

/// Which of the outbox's indices a message is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// `flying`: there is no sign about it.
    Flying,
    /// `overdue`: a later transmission has arrived, and this is when it counts as lost.
    Overdue(Instant),
    /// `lost`: to be sent again now.
    Lost,
}

#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// By sequence number, from `base` on; acknowledged ones are gaps until they reach the front.
    messages: VecDeque<Option<Sent>>,
    base: u64,
    bytes: usize,
    /// By transmission.
    flying: BTreeMap<u64, u64>,
    overdue: BTreeSet<(Instant, u64)>,
    lost: BTreeSet<u64>,

    transmissions: u64,
    /// All transmissions before this one should have arrived.
    arrived: u64,
    rtt: RttEstimator,
    send_time: SendTime,
    silence: Silence,
    data_acknowledged: bool,
    /// When data was sent for the first time.
    first_data: Option<Instant>,
    /// The largest payload acknowledged.
    largest_acknowledged: usize,
    /// The latest payload that was far larger than all that had been acknowledged before it.
    large: Option<Large>,
    /// The agent acknowledges a message once only.
    is_agent_old: bool,
    forgotten: u64,
}

#[derive(Debug, Clone, Copy)]
struct Large {
    sequence: u64,
    payload: usize,
    /// When it was sent first.
    at: Instant,
    /// A small message was sent behind it for the sake of its acknowledgement.
    is_asked_about: bool,
    /// When a payload that is always taken, and was sent behind it, was acknowledged first.
    overtaken: Option<Instant>,
}

/// How long nothing has been acknowledged.
#[derive(Debug, Default)]
struct Silence {
    since: Option<Instant>,
    /// Probes unanswered.
    probes: u32,
    /// How often the timeout has doubled since an acknowledgement told the round trip. An answer that may be one to an
    /// earlier transmission takes nothing back (RFC 6298, 5.7).
    doublings: u32,
    /// Messages in the last probe, unless a message that was sent only once has been acknowledged since.
    burst: usize,
}

impl Outbox {
    /// The sequence number of the next message.
    pub(super) fn next_sequence(&self) -> u64 {
        self.base + self.messages.len() as u64
    }

    /// Payload bytes not acknowledged.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Messages from the oldest unacknowledged one to the newest: what the agent may have to keep.
    pub(super) fn span(&self) -> usize {
        self.messages.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.rtt.smoothed()
    }

    /// The largest payload acknowledged.
    pub(super) fn largest_acknowledged(&self) -> usize {
        self.largest_acknowledged
    }

    /// The first payload that is far larger than all that are known to be taken, and when it was sent first.
    pub(super) fn unproven(&self) -> Option<(usize, Instant)> {
        self.unproven_large().map(|large| (large.payload, large.at))
    }

    /// Since when something small is known to have got past it.
    pub(super) fn unproven_overtaken_since(&self) -> Option<Instant> {
        self.unproven_large()?.overtaken
    }

    fn unproven_large(&self) -> Option<&Large> {
        self.large.as_ref().filter(|large| large.payload > self.largest_acknowledged)
    }

    /// Whether nobody has asked yet what becomes of it. From now on somebody has.
    pub(super) fn ask_about_unproven(&mut self) -> bool {
        let is_unproven = self.unproven_large().is_some();
        self.large.as_mut().filter(|_| is_unproven).is_some_and(|large| !mem::replace(&mut large.is_asked_about, true))
    }

    /// Up to so large a payload is not worth a doubt.
    fn likely_taken(&self) -> usize {
        if self.largest_acknowledged > ALWAYS_TAKEN { FAR_LARGER * self.largest_acknowledged } else { ALWAYS_TAKEN }
    }

    /// When data was sent for the first time, while none is acknowledged.
    pub(super) fn unanswered(&self) -> Option<Instant> {
        self.first_data.filter(|_| !self.data_acknowledged)
    }

    /// Messages no longer waited for, although they were not acknowledged.
    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// An agent that acknowledges a message once only can never repair an acknowledgement that was lost.
    pub(super) fn expect_single_acknowledgements(&mut self) {
        self.is_agent_old = true;
    }

    pub(super) fn expects_single_acknowledgements(&self) -> bool {
        self.is_agent_old
    }

    /// Keeps the message with the next sequence number, which is leaving now.
    pub(super) fn push(&mut self, frame: Bytes, payload: usize, is_data: bool, now: Instant) {
        let sequence = self.next_sequence();
        if self.is_empty() {
            self.silence = Silence { since: Some(now), doublings: self.silence.doublings, ..Silence::default() };
        }
        self.bytes += payload;
        if is_data {
            self.first_data.get_or_insert(now);
        }
        if payload > self.likely_taken() && self.unproven_large().is_none() {
            self.large = Some(Large { sequence, payload, at: now, is_asked_about: false, overtaken: None });
        }
        let sent = Sent { frame, payload, is_data, transmissions: 0, transmission: 0, at: now, place: Place::Lost };
        self.messages.push_back(Some(sent));
        self.transmit(sequence, now);
    }

    pub(super) fn has_lost(&self) -> bool {
        !self.lost.is_empty()
    }

    /// The next message to send again, byte for byte as before.
    pub(super) fn next_resend(&mut self, now: Instant) -> Option<Bytes> {
        let sequence = self.lost.pop_first()?;
        self.transmit(sequence, now)
    }

    /// After a reconnect: everything is to be sent again, in order.
    pub(super) fn resend_all(&mut self, now: Instant) {
        let sequences: Vec<u64> = (self.base..self.next_sequence()).collect();
        for sequence in sequences {
            self.lose(sequence);
        }
        self.silence = Silence { since: Some(now), ..Silence::default() };
        self.send_time.restart();
    }

    /// Takes an acknowledgement. `None` if no message was waiting for it.
    pub(super) fn acknowledge(&mut self, sequence: i64, now: Instant) -> Option<Acknowledged> {
        let sequence = u64::try_from(sequence).ok()?;
        let sent = self.take(sequence)?;
        if let Some(large) = &mut self.large
            && sequence > large.sequence
            && sent.payload <= ALWAYS_TAKEN
        {
            large.overtaken.get_or_insert(now);
        }
        self.data_acknowledged |= sent.is_data;
        self.largest_acknowledged = self.largest_acknowledged.max(sent.payload);
        self.silence.since = Some(now);
        self.silence.probes = 0;
        let elapsed = now.saturating_duration_since(sent.at);
        let least = self.rtt.minimum() + self.send_time.of(sent.payload);
        if sent.transmissions == 1 {
            self.rtt.record(elapsed);
            if self.is_undisturbed() {
                self.send_time.note(sent.payload, sent.at, self.rtt.minimum(), now);
            }
            (self.silence.burst, self.silence.doublings) = (0, 0);
            self.arrived = self.arrived.max(sent.transmission);
        } else if elapsed >= least {
            self.silence.doublings = 0;
        } else if elapsed < self.rtt.minimum() {
            // An earlier transmission has arrived: sending it again was a mistake.
            self.rtt.note_overtaking();
        }
        self.send_time.note_answer(sent.payload, now);
        self.note_overdue();
        self.expire_overdue(now);
        Some(Acknowledged { payload: sent.payload, sent_at: sent.at, is_sample: sent.transmissions == 1 })
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let overdue = self.overdue.first().map(|(deadline, _)| *deadline);
        let silence = self.silence_deadline();
        overdue.into_iter().chain(silence).min()
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.expire_overdue(now);
        if self.silence_deadline().is_some_and(|deadline| deadline <= now) {
            self.probe(now);
        }
    }

    fn silence_deadline(&self) -> Option<Instant> {
        if self.is_empty() {
            return None;
        }
        let timeout = if self.is_first_data() {
            self.rtt.smoothed().map_or(FIRST_DATA_TIMEOUT, |_| self.rtt.reordering().max(FIRST_DATA_TIMEOUT))
        } else {
            self.rtt.timeout()
        };
        let timeout = timeout + self.send_time_of_next();
        let limit = MAX_BACK_OFF.max(timeout * 2);
        Some(self.silence.since? + back_off(timeout, self.silence.doublings).min(limit))
    }

    /// How long the message takes to leave that is acknowledged next: the oldest, or the one whose transmission is.
    fn send_time_of_next(&self) -> Duration {
        let next = self.flying.values().next().copied();
        let payloads = next.into_iter().chain([self.base]).filter_map(|sequence| Some(self.entry(sequence)?.payload));
        payloads.max().map_or(Duration::ZERO, |payload| self.send_time.of(payload))
    }

    fn entry(&self, sequence: u64) -> Option<&Sent> {
        let index = usize::try_from(sequence.checked_sub(self.base)?).ok()?;
        self.messages.get(index)?.as_ref()
    }

    /// Nothing is missing, so that whatever is not acknowledged is on its way.
    fn is_undisturbed(&self) -> bool {
        self.lost.is_empty() && self.overdue.is_empty() && self.silence.doublings == 0
    }

    /// Whether the oldest message is the first that the agent's port must take.
    fn is_first_data(&self) -> bool {
        !self.data_acknowledged && self.messages.front().and_then(Option::as_ref).is_some_and(|oldest| oldest.is_data)
    }

    fn probe(&mut self, now: Instant) {
        let answered = self.silence.probes == 0;
        self.silence.burst = if answered { (self.silence.burst * 2).clamp(1, self.messages.len()) } else { 1 };
        self.silence.probes += 1;
        self.silence.doublings = self.silence.doublings.saturating_add(1);
        self.silence.since = Some(now);
        let stalest: Vec<u64> = self.flying.values().copied().take(self.silence.burst).collect();
        for sequence in stalest {
            self.lose(sequence);
        }
        self.lose(self.base);
    }

    /// Whatever was sent before a transmission that has arrived should have arrived.
    fn note_overdue(&mut self) {
        let delay = self.rtt.reordering();
        let limit = MAX_BACK_OFF.max(delay);
        while let Some(entry) = self.flying.first_entry().filter(|entry| *entry.key() < self.arrived) {
            let sequence = entry.remove();
            let Some(sent) = entry_mut(&mut self.messages, self.base, sequence) else { continue };
            let deadline = sent.at + back_off(delay, sent.transmissions - 1).min(limit);
            sent.place = Place::Overdue(deadline);
            self.overdue.insert((deadline, sequence));
        }
    }

    fn expire_overdue(&mut self, now: Instant) {
        while let Some((_, sequence)) = self.overdue.first().copied().filter(|(deadline, _)| *deadline <= now) {
            if self.is_enough(sequence) {
                self.take(sequence);
                self.forgotten += 1;
                self.silence.since = Some(now);
            } else {
                self.lose(sequence);
            }
        }
    }

    fn is_enough(&mut self, sequence: u64) -> bool {
        let transmissions = entry_mut(&mut self.messages, self.base, sequence).map_or(0, |sent| sent.transmissions);
        self.is_agent_old && transmissions >= ENOUGH_FOR_OLD_AGENTS
    }

    /// Moves a message to `lost`.
    fn lose(&mut self, sequence: u64) {
        let Some(sent) = entry_mut(&mut self.messages, self.base, sequence) else { return };
        let (place, transmission) = (sent.place, sent.transmission);
        sent.place = Place::Lost;
        self.leave(place, transmission, sequence);
        self.lost.insert(sequence);
    }

    /// Notes that a message in `lost` is leaving.
    fn transmit(&mut self, sequence: u64, now: Instant) -> Option<Bytes> {
        let sent = entry_mut(&mut self.messages, self.base, sequence)?;
        self.transmissions += 1;
        sent.transmissions += 1;
        sent.transmission = self.transmissions;
        sent.at = now;
        sent.place = Place::Flying;
        self.flying.insert(sent.transmission, sequence);
        Some(sent.frame.clone())
    }

    /// Removes a message from everything.
    fn take(&mut self, sequence: u64) -> Option<Sent> {
        let index = usize::try_from(sequence.checked_sub(self.base)?).ok()?;
        let sent = self.messages.get_mut(index)?.take()?;
        self.bytes -= sent.payload;
        self.leave(sent.place, sent.transmission, sequence);
        while self.messages.front().is_some_and(Option::is_none) {
            self.messages.pop_front();
            self.base += 1;
        }
        Some(sent)
    }

    fn leave(&mut self, place: Place, transmission: u64, sequence: u64) {
        match place {
            Place::Flying => drop(self.flying.remove(&transmission)),
            Place::Overdue(deadline) => drop(self.overdue.remove(&(deadline, sequence))),
            Place::Lost => drop(self.lost.remove(&sequence)),
        }
    }
}

fn entry_mut(messages: &mut VecDeque<Option<Sent>>, base: u64, sequence: u64) -> Option<&mut Sent> {
    let index = usize::try_from(sequence.checked_sub(base)?).ok()?;
    messages.get_mut(index)?.as_mut()
}

fn back_off(delay: Duration, doublings: u32) -> Duration {
    delay.saturating_mul(1 << doublings.min(16))
}

#[cfg(test)]
mod tests;
