//! The protocol engine of one data channel: no I/O, no clock, no randomness of its own.
//!
//! Input by `handle_*(…, now)`, output by `poll_*`, questions by `is_*`.

use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;

/// Options of the engine.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// Largest payload of one data message, in bytes. Default 16 KiB, 1 to 64 KiB.
    pub max_payload: usize,
    /// Most bytes sent and not acknowledged, in bytes. Default 8 MiB.
    pub max_in_flight: usize,
    /// Most bytes received and not read, plus reordered, in bytes. Default 128 MiB.
    pub max_inbox: usize,
    /// How long to wait for the handshake after the channel is open.
    pub handshake_timeout: Duration,
}

/// What the driver must send, one WebSocket frame each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transmit {
    /// A text frame: the open message. It holds the token, so it is never logged.
    Text(String),
    /// A binary frame: one message.
    Binary(Bytes),
}

/// What the engine tells its driver.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The handshake is complete; bytes may be written from now on.
    Established {
        /// The agent's version as it reported it.
        agent_version: String,
    },
    /// `read` has something to give.
    Readable,
    /// `write` takes bytes again after it returned 0.
    Writable,
    /// After `finish`: everything written, and the TerminateSession flag, is acknowledged.
    Finished,
    /// The session has ended; nothing more will be sent or received.
    Closed(CloseReason),
}

/// Why a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// `channel_closed` without a text: the far end is done. The reader sees end of file.
    Ended,
    /// `channel_closed` with a text, shown to the user as the service wrote it.
    ByService(String),
}

/// The session cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelError {
    /// The agent asked for something in its handshake that this client does not do.
    #[error("the node asked for `{action}` in the handshake, which a Port session never does")]
    UnsupportedAction {
        /// The action's type as requested.
        action: String,
    },
    /// No handshake within the limit.
    #[error("no handshake from the node within {0:?}")]
    HandshakeTimeout(Duration),
}

/// The engine.
pub struct DataChannel {
    _config: Config,
}

#[allow(clippy::todo, clippy::needless_pass_by_value, clippy::unused_self, reason = "skeleton")]
impl DataChannel {
    /// A channel that is not connected yet. `seed` feeds the identifiers (client id, request ids, message ids);
    /// `now` and `wall` are the same moment on the two clocks.
    pub fn new(config: Config, seed: u64, now: Instant, wall: SystemTime) -> Self {
        let _ = (seed, now, wall);
        Self { _config: config }
    }

    /// A WebSocket is open: queues the open message with `token`, then everything unacknowledged, in order.
    pub fn handle_connected(&mut self, token: &str, now: Instant) {
        todo!("{token} {now:?}")
    }

    /// The WebSocket is gone. State is kept; nothing is transmitted until `handle_connected`.
    pub fn handle_disconnected(&mut self, now: Instant) {
        todo!("{now:?}")
    }

    /// One frame from the peer. What cannot be decoded is counted and ignored.
    pub fn handle_frame(&mut self, frame: Bytes, now: Instant) -> Result<(), ChannelError> {
        todo!("{frame:?} {now:?}")
    }

    /// The deadline of `poll_timeout` has passed. A spurious call does nothing.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), ChannelError> {
        todo!("{now:?}")
    }

    /// Takes as many bytes of `data` as the window allows; 0 when it is full or the channel is not established.
    pub fn write(&mut self, data: &[u8], now: Instant) -> usize {
        todo!("{data:?} {now:?}")
    }

    /// The next bytes in order, if any.
    pub fn read(&mut self) -> Option<Bytes> {
        todo!()
    }

    /// Nothing more will be written: after what is unacknowledged, the TerminateSession flag is sent.
    pub fn finish(&mut self, now: Instant) {
        todo!("{now:?}")
    }

    /// The next frame to send.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        todo!("{now:?}")
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        todo!()
    }

    /// When to call `handle_timeout`.
    pub fn poll_timeout(&self) -> Option<Instant> {
        todo!()
    }

    /// Whether application bytes may be written and the window has room.
    pub fn is_writable(&self) -> bool {
        todo!()
    }

    /// Whether the inbox is at its bound: the driver stops reading the socket until `read` made room.
    pub fn is_inbox_full(&self) -> bool {
        todo!()
    }

    /// Whether `Closed` was reported or a fatal error returned.
    pub fn is_closed(&self) -> bool {
        todo!()
    }
}
