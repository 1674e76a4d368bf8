//! What happened in the lab, for tests to assert upon.

use std::sync::{Arc, Mutex, PoisonError};

/// One thing the gateway saw or did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// StartSession was answered with this session.
    SessionStarted {
        /// The SSM session.
        session: String,
    },
    /// ResumeSession was answered with a token.
    SessionResumed {
        /// The SSM session.
        session: String,
    },
    /// TerminateSession was called.
    TerminateCalled {
        /// The SSM session.
        session: String,
    },
    /// The client's TerminateSession flag passed through.
    TerminateFlagSeen {
        /// The SSM session.
        session: String,
    },
    /// A client's WebSocket sent a good open message.
    ClientConnected {
        /// The SSM session.
        session: String,
        /// The client's id in the open message, the same on every socket of one client.
        client_id: String,
    },
    /// A client's WebSocket ended.
    ClientDisconnected {
        /// The SSM session.
        session: String,
    },
    /// The node's WebSocket for a session sent a good open message.
    NodeConnected {
        /// The SSM session.
        session: String,
    },
    /// The node's WebSocket for a session ended.
    NodeDisconnected {
        /// The SSM session.
        session: String,
    },
    /// A client sent more frames than [`Faults::frame_limit`](crate::Faults::frame_limit) allows.
    FrameLimitExceeded {
        /// The SSM session.
        session: String,
    },
    /// A client's message was above [`Faults::payload_limit`](crate::Faults::payload_limit).
    PayloadRefused {
        /// The SSM session.
        session: String,
        /// The bytes of its payload.
        length: usize,
    },
    /// The session is over.
    SessionEnded {
        /// The SSM session.
        session: String,
        /// The text of `channel_closed`.
        output: String,
    },
    /// A call was refused.
    Refused {
        /// The API operation, or `OpenDataChannel` for a WebSocket upgrade.
        operation: String,
        /// The error code.
        code: String,
        /// Why, for people.
        reason: String,
    },
}

/// The shared log.
#[derive(Debug, Clone, Default)]
pub(crate) struct Events(Arc<Mutex<Vec<Event>>>);

impl Events {
    pub(crate) fn record(&self, event: Event) {
        tracing::debug!(?event);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(event);
    }

    pub(crate) fn all(&self) -> Vec<Event> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
