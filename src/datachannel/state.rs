//! The life of a channel.
//!
//! ```text
//!             HandshakeRequest          HandshakeComplete          first Output,
//!   Waiting ───────────────────▶ Answered ─────────────▶ Settling ─────────────▶ Open
//!      │    an action we refuse                                   or hold-off
//!      └──────────────────────▶ Refused
//!
//!   any ── channel_closed, a fatal error ──▶ Closed
//! ```
//!
//! Connected or not is apart from this: a channel outlives its WebSockets.

use std::time::Duration;

/// Why a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// `channel_closed` without a text: the far end is done. The reader sees end of file.
    Ended,
    /// `channel_closed` without a text, while messages from the node were still missing: what the reader got is not
    /// everything, so it must not look like end of file.
    Incomplete,
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
    /// The agent's handshake request cannot be read, so it cannot be answered.
    #[error("the node's handshake request is malformed: {reason}")]
    MalformedHandshake {
        /// What is wrong with it.
        reason: String,
    },
    /// No handshake within the limit.
    #[error("no handshake from the node within {0:?}")]
    HandshakeTimeout(Duration),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// The agent has not asked yet.
    Waiting,
    /// The agent's request was answered, all of it with success.
    Answered {
        /// As the agent reported it.
        agent_version: String,
    },
    /// The agent's request was answered, and not all of it with success: the session will end.
    Refused {
        /// What was refused.
        action: String,
    },
    /// Writes are taken but not sent: the agent may not be ready for them.
    Settling,
    /// Bytes flow.
    Open,
    /// Nothing is sent or received any more.
    Closed,
}

impl State {
    /// The stream has not started, and may yet.
    pub(super) fn is_handshaking(&self) -> bool {
        matches!(self, Self::Waiting | Self::Answered { .. })
    }

    /// The handshake is complete.
    pub(super) fn is_established(&self) -> bool {
        matches!(self, Self::Settling | Self::Open)
    }

    /// The agent sends bytes, or has had the time to get ready for ours.
    pub(super) fn settle(&mut self) {
        if *self == Self::Settling {
            *self = Self::Open;
        }
    }
}
