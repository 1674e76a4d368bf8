//! Why a stream's driver stops.

use std::fmt;
use std::io;

use super::StreamError;
use super::quote::{REFUSAL, quote};
use crate::datachannel::CloseReason;

/// Why the driver stopped carrying frames.
pub(super) enum Stop {
    /// The connection is gone.
    Lost(io::Error),
    /// The far end, or the service, ended the session.
    Closed(CloseReason),
    /// Everything written, and the wish to end, was confirmed.
    Finished,
    /// This side ends the session without more ado.
    GivenUp,
    /// The node broke the protocol.
    Failed(StreamError),
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(cut) => write!(f, "connection lost: {cut}"),
            Self::Closed(CloseReason::Ended) => f.write_str("closed by the far end"),
            Self::Closed(CloseReason::ByService(text)) => write!(f, "ended: {}", quote(text, REFUSAL, &[])),
            Self::Closed(CloseReason::Incomplete) => f.write_str("closed by the far end before everything had arrived"),
            Self::Finished => f.write_str("closed by this side, all confirmed"),
            Self::GivenUp => f.write_str("closed by this side"),
            Self::Failed(error) => write!(f, "failed: {error}"),
        }
    }
}
