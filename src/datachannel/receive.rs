//! What a message does when it arrives.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tracing::{debug, trace};

use super::{
    ChannelError, CloseReason, DataChannel, handshake, inbox::Arrival, pacing::Class, state::State, timers::Timer,
    window::Limit,
};
use crate::wire::{Acknowledge, Body, ChannelClosed, Frame, HandshakeRequest, Message, MessageKind, PayloadType};

/// How long the agent may take to hear of a refusal, which ends the session.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(2);

impl DataChannel {
    pub(super) fn handle_message(&mut self, frame: &Frame, now: Instant) -> Result<(), ChannelError> {
        match &frame.message.kind {
            MessageKind::OutputStreamData => return self.handle_stream_data(frame, now),
            MessageKind::Acknowledge => return self.handle_acknowledge(&frame.message, now),
            MessageKind::ChannelClosed => return self.handle_channel_closed(&frame.message),
            // The plugin ignores them too; a client that paused its writes lost them.
            MessageKind::StartPublication | MessageKind::PausePublication => self.stats.publication_notices += 1,
            other => {
                self.stats.unknown_messages += 1;
                debug!(kind = other.as_str(), "unexpected message ignored");
            }
        }
        Ok(())
    }

    fn handle_stream_data(&mut self, frame: &Frame, now: Instant) -> Result<(), ChannelError> {
        if !frame.is_digest_right() {
            self.stats.digests_wrong += 1;
            debug!(sequence = frame.message.sequence, "message with a wrong digest dropped");
            return Ok(());
        }
        match self.inbox.accept(&frame.message) {
            Arrival::Expected((payload_type, payload)) => {
                self.stats.messages_received += 1;
                self.deliver(payload_type, payload, now)?;
                while let Some((payload_type, payload)) = self.inbox.next_in_order() {
                    self.deliver(payload_type, payload, now)?;
                }
            }
            Arrival::Early => {
                self.stats.messages_received += 1;
                self.stats.messages_reordered += 1;
            }
            Arrival::Repeated => self.stats.messages_repeated += 1,
            Arrival::Refused => self.stats.messages_refused += 1,
        }
        Ok(())
    }

    /// One payload in order. Nothing but `Output` is the reader's.
    fn deliver(&mut self, payload_type: PayloadType, payload: Bytes, now: Instant) -> Result<(), ChannelError> {
        match payload_type {
            PayloadType::Output => {
                self.stats.bytes_received += payload.len() as u64;
                self.events.readable |= !payload.is_empty();
                self.inbox.push_ready(payload);
                self.state.settle();
            }
            PayloadType::HandshakeRequest => return self.handle_handshake_request(&payload, now),
            PayloadType::HandshakeComplete => self.handle_handshake_complete(now),
            other => {
                self.stats.unknown_payloads += 1;
                debug!(payload_type = u32::from(other), "unexpected payload ignored");
            }
        }
        Ok(())
    }

    fn handle_handshake_request(&mut self, payload: &[u8], now: Instant) -> Result<(), ChannelError> {
        if self.state != State::Waiting {
            debug!("repeated handshake request ignored");
            return Ok(());
        }
        let request = match HandshakeRequest::from_json(payload) {
            Ok(request) => request,
            Err(error) => return self.fail(ChannelError::MalformedHandshake { reason: error.to_string() }),
        };
        let answer = handshake::answer(&request, &self.config.client_version);
        self.response = Some(answer.response);
        self.state = match answer.refused {
            None => State::Answered { agent_version: request.agent_version },
            Some(action) => {
                self.timers.stop(Timer::Handshake);
                self.timers.set(Timer::Refusal, now + REFUSAL_TIMEOUT);
                State::Refused { action }
            }
        };
        Ok(())
    }

    fn handle_handshake_complete(&mut self, now: Instant) {
        let State::Answered { agent_version } = &self.state else {
            debug!("handshake completion out of place ignored");
            return;
        };
        let hold_off = handshake::hold_off(agent_version);
        if handshake::acknowledges_once(agent_version) {
            self.outbox.expect_single_acknowledgements();
        }
        self.events.established = Some(agent_version.clone());
        self.state = State::Settling;
        self.timers.stop(Timer::Handshake);
        self.timers.set(Timer::HoldOff, now + hold_off);
        self.note_room();
    }

    fn handle_acknowledge(&mut self, message: &Message, now: Instant) -> Result<(), ChannelError> {
        let acknowledge = match Acknowledge::from_json(&message.payload) {
            Ok(acknowledge) => acknowledge,
            Err(error) => {
                self.note_malformed(&error);
                return Ok(());
            }
        };
        let Some(acknowledged) = self.outbox.acknowledge(acknowledge.sequence, now) else {
            self.stats.acks_ignored += 1;
            trace!(sequence = acknowledge.sequence, "acknowledgement of nothing");
            return Ok(());
        };
        self.window.acknowledge(acknowledged, self.limit(acknowledged.sent_at, now), now);
        self.stats.acks_received += 1;
        self.note_room();
        self.note_finished();
        if matches!(self.state, State::Refused { .. }) { self.fail_refused() } else { Ok(()) }
    }

    /// What has limited the writer since a message was sent that is acknowledged now. An acknowledgement that makes room
    /// does not say that there was any: those that arrive with it must tell the same.
    fn limit(&self, sent_at: Instant, now: Instant) -> Limit {
        let has_pending = self.pending.messages() > 0;
        if has_pending && !self.pacer.allows(Class::Other, now) {
            Limit::Pace
        } else if has_pending || self.is_writer_waiting || self.window_filled_at.is_some_and(|at| at >= sent_at) {
            Limit::Window
        } else {
            Limit::Writer
        }
    }

    fn handle_channel_closed(&mut self, message: &Message) -> Result<(), ChannelError> {
        if matches!(self.state, State::Refused { .. }) {
            return self.fail_refused();
        }
        let closed = ChannelClosed::from_json(&message.payload).unwrap_or_else(|error| {
            self.note_malformed(&error);
            ChannelClosed::default()
        });
        let reason = match closed.output {
            text if !text.is_empty() => CloseReason::ByService(text),
            _ if self.inbox.has_gap() => CloseReason::Incomplete,
            _ => CloseReason::Ended,
        };
        self.state = State::Closed;
        self.events.closed = Some(reason);
        Ok(())
    }
}
