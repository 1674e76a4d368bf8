//! Whether the node still answers what is written. Pure: the clock is given.
//!
//! A node that is gone says nothing, and the service goes on answering pings in front of it.

use std::time::{Duration, Instant};

use crate::datachannel::Stats;

/// A node that takes longer is worth a word: sshd answers in milliseconds, and a stall of seconds is nothing unusual.
const NOTABLE: Duration = Duration::from_secs(10);

/// How long the node has been silent although it owes an answer.
#[derive(Debug, Default)]
pub(super) struct Silence {
    since: Option<Instant>,
    heard: u64,
}

impl Silence {
    /// Looks at what was exchanged. Nobody could have been heard before `attentive_since`.
    pub(super) fn observe(&mut self, stats: &Stats, attentive_since: Instant, now: Instant) {
        let heard = stats.acks_received + stats.messages_received;
        let is_broken = std::mem::replace(&mut self.heard, heard) != heard;
        if stats.in_flight == 0 {
            self.since = None;
        } else if is_broken || self.since.is_none() {
            self.since = Some(now);
        }
        self.since = self.since.map(|since| since.max(attentive_since));
    }

    /// Since when the node has been silent, if that is worth a word by now.
    pub(super) fn notable(&self, now: Instant) -> Option<Instant> {
        self.since.filter(|since| *since + NOTABLE <= now)
    }

    /// When it will be worth a word, or is to be given up after `limit`.
    pub(super) fn deadline(&self, limit: Duration, now: Instant) -> Option<Instant> {
        let since = self.since?;
        [since + NOTABLE, since + limit].into_iter().filter(|moment| *moment > now).min()
    }

    /// Whether it has lasted for `limit`.
    pub(super) fn outlasts(&self, limit: Duration, now: Instant) -> bool {
        self.since.is_some_and(|since| since + limit <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_mins(10);

    fn stats(acks_received: u64, in_flight: usize) -> Stats {
        let mut stats = Stats::default();
        (stats.acks_received, stats.in_flight) = (acks_received, in_flight);
        stats
    }

    #[test]
    fn a_node_that_owes_nothing_may_be_silent_for_ever() {
        let (mut silence, start) = (Silence::default(), Instant::now());
        silence.observe(&stats(0, 0), start, start);
        assert_eq!(silence.deadline(LIMIT, start), None);
        silence.observe(&stats(0, 1), start, start + LIMIT);
        assert!(!silence.outlasts(LIMIT, start + LIMIT));
        assert_eq!(silence.deadline(LIMIT, start + LIMIT), Some(start + LIMIT + NOTABLE));
    }

    #[test]
    fn any_answer_ends_the_silence_and_what_is_left_begins_another() {
        let (mut silence, start) = (Silence::default(), Instant::now());
        silence.observe(&stats(0, 2), start, start);
        let later = start + NOTABLE;
        silence.observe(&stats(0, 2), start, later);
        assert_eq!(silence.notable(later), Some(start));
        assert_eq!(silence.deadline(LIMIT, later), Some(start + LIMIT));
        silence.observe(&stats(1, 1), start, later);
        assert_eq!((silence.notable(later), silence.deadline(LIMIT, later)), (None, Some(later + NOTABLE)));
        silence.observe(&stats(1, 1), start, later + LIMIT);
        assert!(silence.outlasts(LIMIT, later + LIMIT));
    }

    #[test]
    fn time_in_which_nobody_listened_does_not_count() {
        let (mut silence, start) = (Silence::default(), Instant::now());
        silence.observe(&stats(0, 1), start, start);
        silence.observe(&stats(0, 1), start + LIMIT, start + LIMIT);
        assert!(!silence.outlasts(LIMIT, start + LIMIT) && silence.notable(start + LIMIT).is_none());
    }
}
