//! Whether the node still answers what is written. Pure: the clock is given.
//!
//! A node that is gone says nothing, and the service goes on answering pings in front of it.

use std::time::{Duration, Instant};

use crate::datachannel::Stats;

/// A node that takes longer is worth a word: sshd answers in milliseconds, and a stall of seconds is nothing unusual.
const NOTABLE: Duration = Duration::from_secs(10);

/// A node that owes nothing is not asked sooner.
const LEAST_QUIET: Duration = Duration::from_secs(5);

/// How long the node has been silent although it owes an answer, and when to make it owe one.
#[derive(Debug, Default)]
pub(super) struct Silence {
    /// Since when it owes an answer and says nothing.
    since: Option<Instant>,
    /// What it owes is the answer to a question that came after silence: so much of that counts.
    before: Duration,
    heard: u64,
    /// When it was heard last, or could not have been.
    heard_at: Option<Instant>,
    is_asked: bool,
}

impl Silence {
    /// Looks at what was exchanged. Nobody could have been heard before `attentive_since`.
    pub(super) fn observe(&mut self, stats: &Stats, attentive_since: Instant, now: Instant) {
        let heard = stats.acks_received + stats.messages_received;
        let is_broken = std::mem::replace(&mut self.heard, heard) != heard;
        if is_broken || self.heard_at.is_none() {
            self.heard_at = Some(now);
            (self.is_asked, self.before) = (false, Duration::ZERO);
        }
        self.heard_at = self.heard_at.max(Some(attentive_since));
        if stats.in_flight == 0 {
            self.since = None;
        } else if is_broken || self.since.is_none() {
            self.since = Some(now);
        }
        self.since = self.since.map(|since| since.max(attentive_since));
    }

    /// Whether it is time to ask a node that owes nothing whether it is there; to be called once it is asked. Half of `limit`
    /// is for its silence, the other half for its answer.
    pub(super) fn asks(&mut self, limit: Duration, attentive_since: Instant, now: Instant) -> bool {
        self.heard_at = self.heard_at.max(Some(attentive_since));
        let is_due = self.since.is_none() && !self.is_asked && self.asks_at(limit).is_some_and(|at| at <= now);
        if is_due {
            (self.is_asked, self.before) = (true, limit / 2);
        }
        is_due
    }

    fn asks_at(&self, limit: Duration) -> Option<Instant> {
        self.heard_at.map(|heard| heard + (limit / 2).max(LEAST_QUIET))
    }

    /// Since when the node has been silent, if that is worth a word by now.
    pub(super) fn notable(&self, now: Instant) -> Option<Instant> {
        self.since.filter(|since| *since + NOTABLE <= now)
    }

    /// When it is given up, with this limit.
    pub(super) fn gives_up(&self, limit: Duration) -> Option<Instant> {
        self.since.map(|since| since + limit.saturating_sub(self.before))
    }

    /// When it will be worth a word, or is to be asked, or given up after `limit`.
    pub(super) fn deadline(&self, limit: Duration, now: Instant) -> Option<Instant> {
        let moments = match self.since {
            Some(since) => [Some(since + NOTABLE), self.gives_up(limit)],
            None => [self.asks_at(limit).filter(|_| !self.is_asked), None],
        };
        moments.into_iter().flatten().filter(|moment| *moment > now).min()
    }

    /// Whether it has lasted for `limit`.
    pub(super) fn outlasts(&self, limit: Duration, now: Instant) -> bool {
        self.gives_up(limit).is_some_and(|moment| moment <= now)
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
    fn a_node_that_owes_nothing_is_asked_after_half_the_limit_and_given_up_at_its_end() {
        let (mut silence, start) = (Silence::default(), Instant::now());
        silence.observe(&stats(0, 0), start, start);
        assert_eq!(silence.deadline(LIMIT, start), Some(start + LIMIT / 2));
        assert!(!silence.asks(LIMIT, start, start + LIMIT / 3));
        let asked = start + LIMIT / 2;
        assert!(silence.asks(LIMIT, start, asked) && !silence.asks(LIMIT, start, asked), "once");
        silence.observe(&stats(0, 1), start, asked);
        assert_eq!(silence.notable(asked), None);
        assert_eq!(silence.deadline(LIMIT, asked), Some(asked + NOTABLE));
        assert!(!silence.outlasts(LIMIT, start + LIMIT * 9 / 10));
        assert!(silence.outlasts(LIMIT, start + LIMIT));
    }

    #[test]
    fn a_node_that_answers_is_asked_again_and_what_is_written_then_has_the_whole_limit() {
        let (mut silence, start) = (Silence::default(), Instant::now());
        silence.observe(&stats(0, 0), start, start);
        let asked = start + LIMIT / 2;
        assert!(silence.asks(LIMIT, start, asked));
        silence.observe(&stats(0, 1), start, asked);
        silence.observe(&stats(1, 0), start, asked);
        assert_eq!(silence.deadline(LIMIT, asked), Some(asked + LIMIT / 2));
        silence.observe(&stats(1, 1), start, asked);
        assert!(!silence.outlasts(LIMIT, start + LIMIT) && silence.outlasts(LIMIT, asked + LIMIT));
    }

    #[test]
    fn a_limit_of_moments_does_not_ask_all_the_time() {
        let (mut silence, start) = (Silence::default(), Instant::now());
        silence.observe(&stats(0, 0), start, start);
        assert!(!silence.asks(Duration::from_secs(1), start, start + Duration::from_secs(4)));
        assert!(silence.asks(Duration::from_secs(1), start, start + LEAST_QUIET));
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
