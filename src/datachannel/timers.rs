//! The deadlines of the life cycle. Those of single messages are the outbox's.

use std::time::Instant;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Timer {
    /// The handshake must be complete.
    Handshake,
    /// Application bytes may be sent although the agent has sent none.
    HoldOff,
    /// The refusal of the agent's request must have arrived.
    Refusal,
}

const ALL: [Timer; 3] = [Timer::Handshake, Timer::HoldOff, Timer::Refusal];

#[derive(Debug, Default)]
pub(super) struct Timers([Option<Instant>; ALL.len()]);

impl Timers {
    pub(super) fn set(&mut self, timer: Timer, deadline: Instant) {
        self.0[timer as usize] = Some(deadline);
    }

    pub(super) fn stop(&mut self, timer: Timer) {
        self.0[timer as usize] = None;
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.0.iter().copied().flatten().min()
    }

    /// Stops and returns one whose deadline has passed.
    pub(super) fn take_expired(&mut self, now: Instant) -> Option<Timer> {
        let expired = ALL.into_iter().find(|timer| self.0[*timer as usize].is_some_and(|deadline| deadline <= now))?;
        self.stop(expired);
        Some(expired)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{super::tests::start, *};

    #[test]
    fn the_earliest_deadline_is_next_and_each_expires_once() {
        let (mut timers, start) = (Timers::default(), start());
        assert_eq!(timers.next(), None);
        let later = start + Duration::from_secs(1);
        timers.set(Timer::Handshake, later);
        timers.set(Timer::HoldOff, start);
        assert_eq!(timers.next(), Some(start));
        assert_eq!(timers.take_expired(start), Some(Timer::HoldOff));
        assert_eq!(timers.take_expired(start), None);
        assert_eq!(timers.next(), Some(later));
    }

    #[test]
    fn a_stopped_timer_does_not_expire() {
        let (mut timers, start) = (Timers::default(), start());
        timers.set(Timer::Refusal, start);
        timers.stop(Timer::Refusal);
        assert_eq!(timers.take_expired(start), None);
    }
}
