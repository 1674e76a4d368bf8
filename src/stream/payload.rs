//! Whether the service takes payloads above 1 KiB, which only the first of them shows.
//!
//! The official client never sends larger ones, and what the service takes is not documented. A message that was sent once
//! must be sent again as it was, so a stream whose first large payload does not get through cannot go on. A node that has
//! fallen silent looks the same at first: only when something small gets through behind it is its size to blame.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::StreamError;
use super::socket::is_size_refused;

/// Cuts in a row, each while a large payload was on its way, after which it is to blame. One may be chance.
const CUTS: u32 = 3;

/// How long a large payload may stay unacknowledged on a connection that is read, once a smaller one behind it has been
/// acknowledged. It is sent again every second.
const PATIENCE: Duration = Duration::from_secs(10);

/// After so long something small is sent behind it, in case nothing else is.
const QUESTION: Duration = Duration::from_secs(5);

/// What has spoken against large payloads so far.
#[derive(Debug, Default)]
pub(super) struct LargePayloads {
    cuts: u32,
}

impl LargePayloads {
    /// Until when a payload that was overtaken then must have been acknowledged, if that would have been seen since
    /// `attentive_since`.
    pub(super) fn deadline(overtaken: Instant, attentive_since: Instant) -> Instant {
        overtaken.max(attentive_since) + PATIENCE
    }

    /// When to ask whether it is the node that is silent.
    pub(super) fn question(sent: Instant, attentive_since: Instant) -> Instant {
        sent.max(attentive_since) + QUESTION
    }

    /// The connection was cut; says whether the payload is to blame.
    pub(super) fn cut(&mut self, unproven: Option<(usize, Instant)>, cut: &Arc<io::Error>) -> Result<(), StreamError> {
        let Some((size, _)) = unproven else {
            self.cuts = 0;
            return Ok(());
        };
        self.cuts += 1;
        if self.cuts < CUTS && !is_size_refused(cut) {
            return Ok(());
        }
        Err(StreamError::PayloadRefused { size, cut: Some(Arc::clone(cut)) })
    }
}
