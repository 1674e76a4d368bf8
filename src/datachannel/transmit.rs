//! What leaves, in the order of its urgency.

use std::mem;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;

use super::{DataChannel, Finish, inbox::AckOwed, pacing::Class, state::State};
use crate::wire::{Acknowledge, Body, FLAGS_SINGLE, Flag, FrameBuf, Header, MessageKind, PayloadType, Size};

impl DataChannel {
    /// The class of the frame that is to leave next. Acknowledgements go first: the agent repeats what is not
    /// acknowledged, and the fewer frames the better.
    pub(super) fn next_class(&self) -> Option<Class> {
        match (self.inbox.owes_acks(), self.has_other_frames()) {
            _ if self.open.is_some() => Some(Class::Ack),
            (true, true) => Some(self.pacer.first()),
            (true, false) => Some(Class::Ack),
            (false, true) => Some(Class::Other),
            (false, false) => None,
        }
    }

    fn has_other_frames(&self) -> bool {
        let has_new = self.pending.messages() > 0 || self.finish == Finish::Wanted || self.is_question_wanted;
        self.outbox.has_lost() || self.response.is_some() || (self.state == State::Open && has_new)
    }

    pub(super) fn next_frame(&mut self, class: Class, now: Instant) -> Option<Bytes> {
        match class {
            Class::Ack => self.next_ack(now),
            Class::Other => self.next_resend(now).or_else(|| self.next_new(now)),
        }
    }

    fn next_ack(&mut self, now: Instant) -> Option<Bytes> {
        let AckOwed { sequence, id } = self.inbox.next_ack()?;
        let acknowledge = Acknowledge {
            message_type: MessageKind::OutputStreamData.as_str().to_owned(),
            message_id: id,
            sequence,
            is_sequential: true,
        };
        self.stats.acks_sent += 1;
        let header = Header {
            kind: &MessageKind::Acknowledge,
            created_millis: self.clock.millis_at(now),
            sequence: 0,
            flags: FLAGS_SINGLE,
            id: self.ids.next_id(),
            payload_type: PayloadType::NONE,
        };
        Some(frame_of(acknowledge.to_json().as_bytes()).seal(&header))
    }

    fn next_resend(&mut self, now: Instant) -> Option<Bytes> {
        let frame = self.outbox.next_resend(now)?;
        self.stats.messages_resent += 1;
        Some(frame)
    }

    fn next_new(&mut self, now: Instant) -> Option<Bytes> {
        if let Some(response) = self.response.take() {
            let response = frame_of(response.to_json().as_bytes());
            return Some(self.send_new(response, PayloadType::HandshakeResponse, now));
        }
        if self.state != State::Open {
            return None;
        }
        if mem::take(&mut self.is_question_wanted) {
            let size = frame_of(Size { cols: 80, rows: 24 }.to_json().as_bytes());
            return Some(self.send_new(size, PayloadType::Size, now));
        }
        if let Some(data) = self.pending.pop() {
            return Some(self.send_new(data, PayloadType::Output, now));
        }
        if self.finish == Finish::Wanted {
            self.finish = Finish::FlagSent;
            let flag = frame_of(&Flag::TerminateSession.encode());
            return Some(self.send_new(flag, PayloadType::Flag, now));
        }
        None
    }

    /// Gives the frame the next sequence number.
    fn send_new(&mut self, frame: FrameBuf, payload_type: PayloadType, now: Instant) -> Bytes {
        let payload = frame.len();
        if self.outbox.is_empty() {
            self.window.note_idle();
        }
        let header = Header {
            kind: &MessageKind::InputStreamData,
            created_millis: self.clock.millis_at(now),
            sequence: i64::try_from(self.outbox.next_sequence()).unwrap_or(i64::MAX),
            flags: 0,
            id: self.ids.next_id(),
            payload_type,
        };
        let frame = frame.seal(&header);
        self.stats.messages_sent += 1;
        self.stats.bytes_sent += payload as u64;
        self.outbox.push(frame.clone(), payload, payload_type == PayloadType::Output, now);
        frame
    }
}

fn frame_of(payload: &[u8]) -> FrameBuf {
    let mut frame = FrameBuf::with_capacity(payload.len());
    frame.extend_from_slice(payload);
    frame
}

/// Turns moments into the wire's dates.
#[derive(Debug, Clone, Copy)]
pub(super) struct WallClock {
    start: Instant,
    start_millis: u64,
}

impl WallClock {
    pub(super) fn new(now: Instant, wall: SystemTime) -> Self {
        let since_epoch = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { start: now, start_millis: millis(since_epoch) }
    }

    /// Never 0, which the agent takes for a missing date.
    fn millis_at(&self, now: Instant) -> u64 {
        self.start_millis.saturating_add(millis(now.saturating_duration_since(self.start))).max(1)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
