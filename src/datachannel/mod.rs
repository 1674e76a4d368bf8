//! The protocol engine of one data channel: no I/O, no clock, no randomness of its own.
//!
//! Input by `handle_*(…, now)` and `write`, output by `poll_*` and `read`, questions by `is_*`. After any input a driver
//! drains `poll_transmit`, then `poll_event`, then arms its timer with `poll_timeout`.
//!
//! ```text
//!            write ──▶ pending ──▶ outbox ──┐  poll_transmit
//!                                  resends ─┤    ──────▶
//!                          handshake, acks ─┘  paced       WebSocket
//!            read  ◀── inbox ◀── acknowledged at once ◀────────
//!                      in order                   handle_frame
//! ```
//!
//! A sequence number once sent is sent again byte for byte until it is acknowledged, over any number of WebSockets.
//! Nothing is evicted: a full outbox makes [`DataChannel::write`] return 0, a full inbox leaves messages unacknowledged.

mod config;
mod event;
mod handshake;
mod inbox;
mod outbox;
mod pacing;
mod pending;
mod receive;
mod rtt;
mod send_time;
mod state;
mod timers;
mod transmit;
mod window;

use std::{
    fmt,
    time::{Instant, SystemTime},
};

use bytes::Bytes;
use tracing::debug;
use uuid::Uuid;

use crate::wire::{Body, Frame, HandshakeResponse, Ids, OpenDataChannel};
use event::Events;
use inbox::Inbox;
use outbox::Outbox;
use pacing::Pacer;
use pending::Pending;
use state::State;
use timers::{Timer, Timers};
use transmit::WallClock;
use window::Window;

pub use config::{Config, Stats};
pub(crate) use config::{LONGEST, SHORTEST};
pub use event::{Event, Transmit};
pub use state::{ChannelError, CloseReason};

/// The engine. Dropping it sends nothing. `Debug` shows its state, not the bytes it holds.
pub struct DataChannel {
    config: Config,
    clock: WallClock,
    ids: Ids,
    client_id: Uuid,

    state: State,
    is_connected: bool,
    /// The open message, until it is sent.
    open: Option<Transmit>,
    /// The handshake's response, until it is sent. There is never a second one: the agent would block on it.
    response: Option<HandshakeResponse>,
    finish: Finish,
    /// A message that only asks to be acknowledged is to be sent.
    is_question_wanted: bool,
    pending: Pending,
    outbox: Outbox,
    window: Window,
    inbox: Inbox,
    pacer: Pacer,
    timers: Timers,
    events: Events,
    /// `write` took fewer bytes than it was given, and there has been no room for more since.
    is_writer_waiting: bool,
    /// When `write` took fewer bytes than it was given last.
    window_filled_at: Option<Instant>,
    stats: Stats,
}

/// How far the end of the client's stream has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Finish {
    No,
    /// The flag follows what is pending.
    Wanted,
    FlagSent,
    Reported,
}

impl fmt::Debug for DataChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataChannel")
            .field("state", &self.state)
            .field("is_connected", &self.is_connected)
            .field("finish", &self.finish)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

impl DataChannel {
    /// A channel that is not connected yet. `seed` feeds the identifiers (client id, request ids, message ids);
    /// `now` and `wall` are the same moment on the two clocks.
    pub fn new(config: Config, seed: u64, now: Instant, wall: SystemTime) -> Self {
        let config = config.within_limits();
        let mut ids = Ids::new(seed);
        Self {
            clock: WallClock::new(now, wall),
            client_id: ids.next_id(),
            ids,
            state: State::Waiting,
            is_connected: false,
            open: None,
            response: None,
            finish: Finish::No,
            is_question_wanted: false,
            pending: Pending::default(),
            outbox: Outbox::default(),
            window: Window::new(config.max_payload, config.max_in_flight),
            inbox: Inbox::new(config.max_inbox),
            pacer: Pacer::new(config.max_frames_per_second, config.burst),
            timers: Timers::default(),
            events: Events::default(),
            is_writer_waiting: false,
            window_filled_at: None,
            stats: Stats::default(),
            config,
        }
    }

    /// A WebSocket is open: queues the open message with `token`, then the last acknowledgements once more and everything
    /// unacknowledged, in order.
    pub fn handle_connected(&mut self, token: &str, now: Instant) {
        if self.is_closed() {
            return;
        }
        let open = OpenDataChannel::client(self.ids.next_id(), token, self.client_id, &self.config.client_version);
        self.open = Some(Transmit::Text(open.to_json()));
        self.is_connected = true;
        self.outbox.resend_all(now);
        self.window.restart();
        self.stats.acks_repeated += self.inbox.repeat_acks() as u64;
        if self.state.is_handshaking() {
            self.timers.set(Timer::Handshake, now + self.config.handshake_timeout);
        }
    }

    /// The WebSocket is gone. State is kept; nothing is transmitted until `handle_connected`.
    pub fn handle_disconnected(&mut self, _now: Instant) {
        self.is_connected = false;
        self.open = None;
        self.timers.stop(Timer::Handshake);
    }

    /// One frame from the peer. What cannot be decoded is counted and ignored.
    pub fn handle_frame(&mut self, frame: Bytes, now: Instant) -> Result<(), ChannelError> {
        if self.is_closed() {
            return Ok(());
        }
        match Frame::decode(frame) {
            Ok(frame) => self.handle_message(&frame, now),
            Err(error) => {
                self.note_malformed(&error);
                Ok(())
            }
        }
    }

    /// The deadline of `poll_timeout` has passed. A spurious call does nothing.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), ChannelError> {
        while let Some(timer) = self.timers.take_expired(now) {
            match timer {
                Timer::Handshake => {
                    return self.fail(ChannelError::HandshakeTimeout(self.config.handshake_timeout));
                }
                Timer::HoldOff => self.state.settle(),
                Timer::Refusal => return self.fail_refused(),
            }
        }
        if self.is_connected {
            self.outbox.handle_timeout(now);
            self.note_room();
            self.note_finished();
        }
        Ok(())
    }

    /// Takes as many bytes of `data` as the window allows; 0 when it is full or the channel is not established.
    ///
    /// Bytes taken before the agent is ready for them are held back, and so are those taken while there is no WebSocket.
    pub fn write(&mut self, data: &[u8], now: Instant) -> usize {
        let room = if self.takes_writes() { self.room() } else { 0 };
        // A rest of the window smaller than a message is left alone: slivers cost as much as full messages.
        let taken = if data.len() <= room || room >= self.window.message() { data.len().min(room) } else { 0 };
        self.pending.push(&data[..taken], self.window.message());
        if taken < data.len() {
            self.is_writer_waiting = true;
            self.window_filled_at = Some(now);
        }
        taken
    }

    /// The next bytes in order, if any.
    pub fn read(&mut self) -> Option<Bytes> {
        self.inbox.read()
    }

    /// Nothing more will be written: behind what is written, the TerminateSession flag is sent.
    pub fn finish(&mut self, _now: Instant) {
        if self.finish == Finish::No && !self.is_closed() {
            self.finish = Finish::Wanted;
        }
    }

    /// The next frame to send. None where there is nothing to send, or not yet: then `poll_timeout` says when.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        if !self.is_connected || self.is_closed() {
            return None;
        }
        let class = self.next_class().filter(|class| self.pacer.allows(*class, now))?;
        let frame = self.open.take().or_else(|| self.next_frame(class, now).map(Transmit::Binary))?;
        self.pacer.spend(class, now);
        Some(frame)
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop()
    }

    /// When to call `handle_timeout`.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.is_closed() {
            return None;
        }
        let outbox = self.outbox.deadline().filter(|_| self.is_connected);
        let paced = self.next_class().filter(|_| self.is_connected).and_then(|class| self.pacer.opens_at(class));
        [self.timers.next(), outbox, paced].into_iter().flatten().min()
    }

    /// Whether application bytes may be written and the window has room.
    pub fn is_writable(&self) -> bool {
        self.takes_writes() && self.room() >= self.window.message()
    }

    /// Whether the inbox is at its bound: the driver stops reading the socket until `read` made room.
    pub fn is_inbox_full(&self) -> bool {
        self.inbox.is_full()
    }

    /// Whether everything written has been acknowledged; the TerminateSession flag itself does not count.
    pub fn is_delivered(&self) -> bool {
        let flag = usize::from(self.finish == Finish::FlagSent);
        self.pending.bytes() == 0 && self.outbox.span() <= flag
    }

    /// Whether `Closed` was reported or a fatal error returned.
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// The size of a payload above 1 KiB and when it was sent first, as long as none of its size has been acknowledged: it is
    /// not known whether the service takes such at all. One that is at most twice as large as another that was acknowledged
    /// counts as known.
    pub fn unproven_payload(&self) -> Option<(usize, Instant)> {
        self.outbox.unproven()
    }

    /// Since when a payload of at most 1 KiB that was sent behind [`DataChannel::unproven_payload`] has been acknowledged: from
    /// then on it is no silence of the node that holds the large one up.
    pub fn unproven_overtaken_since(&self) -> Option<Instant> {
        self.outbox.unproven_overtaken_since()
    }

    /// Sends a small message behind [`DataChannel::unproven_payload`], once for each: its acknowledgement tells a node that is
    /// silent from a payload that does not get through. It is a terminal size, which a session without a terminal
    /// acknowledges and ignores.
    pub fn send_question(&mut self) {
        self.is_question_wanted |= self.outbox.ask_about_unproven();
    }

    /// Sends a small message that the agent acknowledges, once the channel is open: whether there is a node is seen by that
    /// where nothing else is to be sent. It is the same as [`DataChannel::send_question`] sends.
    pub fn send_probe(&mut self) {
        self.is_question_wanted |= self.state == State::Open && self.finish == Finish::No;
    }

    /// When the first bytes were sent, as long as none has been acknowledged and none has come back: it is not known
    /// whether anything on the node takes them.
    pub fn unanswered_since(&self) -> Option<Instant> {
        self.outbox.unanswered().filter(|_| self.stats.bytes_received == 0)
    }

    /// Whether the agent is an old one that acknowledges a message once only: what is unacknowledged may have arrived.
    pub fn is_agent_terse(&self) -> bool {
        self.outbox.expects_single_acknowledgements()
    }

    /// What has been seen so far.
    pub fn stats(&self) -> Stats {
        Stats {
            messages_forgotten: self.outbox.forgotten(),
            largest_acknowledged: self.outbox.largest_acknowledged(),
            in_flight: self.outbox.bytes(),
            window: self.window.bytes(),
            round_trip: self.outbox.round_trip(),
            ..self.stats
        }
    }

    fn takes_writes(&self) -> bool {
        self.state.is_established() && self.finish == Finish::No
    }

    /// Bytes that may be written: the window less what is pending or in flight.
    fn room(&self) -> usize {
        let bytes = self.window.bytes().saturating_sub(self.pending.bytes() + self.outbox.bytes());
        let messages = config::MAX_MESSAGES_IN_FLIGHT.saturating_sub(self.pending.messages() + self.outbox.span());
        bytes.min(messages.saturating_mul(self.window.message()))
    }

    /// The writer is called when a whole message fits again.
    fn note_room(&mut self) {
        if self.is_writer_waiting && self.is_writable() {
            self.is_writer_waiting = false;
            self.events.writable = true;
        }
    }

    fn note_finished(&mut self) {
        if self.finish == Finish::FlagSent && self.outbox.is_empty() {
            self.finish = Finish::Reported;
            self.events.finished = true;
        }
    }

    fn note_malformed(&mut self, error: &dyn std::error::Error) {
        self.stats.malformed += 1;
        debug!(%error, "malformed message ignored");
    }

    fn fail_refused(&mut self) -> Result<(), ChannelError> {
        let State::Refused { action } = &self.state else { return Ok(()) };
        let action = action.clone();
        self.fail(ChannelError::UnsupportedAction { action })
    }

    fn fail(&mut self, error: ChannelError) -> Result<(), ChannelError> {
        self.state = State::Closed;
        Err(error)
    }
}

#[cfg(test)]
mod tests;
