//! The clock of the timers.

use std::time::Instant;

/// Now. Under a runtime whose clock is paused it stands still with the timers, as a test of hours needs it.
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
