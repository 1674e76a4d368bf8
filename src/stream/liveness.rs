//! When to ping, and when a silent peer counts as gone. Pure: the clocks are given.

use std::time::{Duration, Instant, SystemTime};

/// How often the clocks are compared. A timer does not run on while the machine sleeps: this is how late, at most, the
/// sleep is noticed after its end.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// A wall clock that has gained this much on the timers' clock tells of a sleep. Set by hand it costs one ping.
const SLEEP: Duration = Duration::from_secs(5);

/// After a sleep the connection is most likely gone, and whoever is there answers within this.
const ANSWER_AFTER_SLEEP: Duration = Duration::from_secs(5);

/// How a connection is kept, and known to be gone.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeepAlive {
    pub(super) interval: Duration,
    pub(super) dead_after: Duration,
}

impl KeepAlive {
    /// Network address translators and load balancers forget a connection that is silent for a minute. When two pings
    /// and their answers are missing, nobody is there any more.
    pub(super) const USUAL: Self = Self { interval: Duration::from_secs(30), dead_after: Duration::from_secs(75) };
}

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pulse {
    Nothing,
    Ping,
    Gone,
}

/// The life of one connection. Only time in which the connection was read counts as silence: a slow reader upstream is no
/// sign about the peer.
#[derive(Debug)]
pub(super) struct Liveness {
    limits: KeepAlive,
    /// When the peer was heard last, or could not have been.
    heard: Instant,
    next_ping: Instant,
    /// When the clocks were compared last, on both of them.
    looked: (Instant, SystemTime),
    /// After a sleep: until when the peer must have been heard.
    answer_by: Option<Instant>,
}

impl Liveness {
    pub(super) fn new(limits: KeepAlive, now: Instant, wall: SystemTime) -> Self {
        Self { limits, heard: now, next_ping: now + limits.interval, looked: (now, wall), answer_by: None }
    }

    /// Anything has arrived.
    pub(super) fn heard(&mut self, now: Instant) {
        self.heard = now;
        self.answer_by = None;
    }

    /// Nothing can be heard, because nothing is read.
    pub(super) fn not_reading(&mut self, now: Instant) {
        self.heard = now;
        self.answer_by = self.answer_by.map(|_| now + ANSWER_AFTER_SLEEP);
    }

    /// When to call `check`.
    pub(super) fn deadline(&self) -> Instant {
        let silence = self.heard + self.limits.dead_after;
        let next = self.next_ping.min(silence).min(self.looked.0 + LOOK_INTERVAL);
        self.answer_by.map_or(next, |answer_by| answer_by.min(next))
    }

    /// Looks at the clocks. A spurious call does nothing.
    pub(super) fn check(&mut self, now: Instant, wall: SystemTime) -> Pulse {
        if self.has_slept(now, wall) {
            self.answer_by = Some(now + ANSWER_AFTER_SLEEP);
            self.next_ping = now;
        }
        let is_late = self.answer_by.is_some_and(|answer_by| answer_by <= now);
        if is_late || self.heard + self.limits.dead_after <= now {
            return Pulse::Gone;
        }
        if now < self.next_ping {
            return Pulse::Nothing;
        }
        self.next_ping = now + self.limits.interval;
        Pulse::Ping
    }

    fn has_slept(&mut self, now: Instant, wall: SystemTime) -> bool {
        let (before, wall_before) = std::mem::replace(&mut self.looked, (now, wall));
        let on_the_wall = wall.duration_since(wall_before).unwrap_or_default();
        on_the_wall.saturating_sub(now.saturating_duration_since(before)) >= SLEEP
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    /// A connection, and what it makes of the clocks at so many seconds after its beginning.
    struct Watched {
        liveness: Liveness,
        start: Instant,
        slept: Duration,
    }

    impl Watched {
        fn new() -> Self {
            let start = Instant::now();
            Self { liveness: Liveness::new(KeepAlive::USUAL, start, SystemTime::UNIX_EPOCH), start, slept: secs(0) }
        }

        fn heard(&mut self, at: u64) {
            self.liveness.heard(self.start + secs(at));
        }

        fn at(&mut self, at: u64) -> Pulse {
            self.liveness.check(self.start + secs(at), SystemTime::UNIX_EPOCH + secs(at) + self.slept)
        }

        /// Calls `check` whenever it wants to be; says what it did that was not nothing.
        fn run(&mut self, until: u64) -> Vec<(u64, Pulse)> {
            let mut done = Vec::new();
            loop {
                let at = (self.liveness.deadline() - self.start).as_secs();
                if at > until {
                    return done;
                }
                match self.at(at) {
                    Pulse::Nothing => {}
                    Pulse::Gone => {
                        done.push((at, Pulse::Gone));
                        return done;
                    }
                    Pulse::Ping => done.push((at, Pulse::Ping)),
                }
            }
        }
    }

    #[test]
    fn a_silent_peer_is_pinged_twice_and_gone_after_75_seconds() {
        assert_eq!(Watched::new().run(100), [(30, Pulse::Ping), (60, Pulse::Ping), (75, Pulse::Gone)]);
    }

    #[test]
    fn any_frame_is_a_sign_of_life() {
        let mut watched = Watched::new();
        assert_eq!(watched.run(70), [(30, Pulse::Ping), (60, Pulse::Ping)]);
        watched.heard(70);
        assert_eq!(watched.run(200), [(90, Pulse::Ping), (120, Pulse::Ping), (145, Pulse::Gone)]);
    }

    #[test]
    fn while_nothing_is_read_there_are_pings_and_no_verdict() {
        let mut watched = Watched::new();
        for minute in 1..60 {
            watched.liveness.not_reading(watched.start + secs(minute * 60));
            assert!(!watched.run(minute * 60 + 59).contains(&(minute * 60 + 75, Pulse::Gone)));
        }
        assert_eq!(watched.run(60 * 60 + 59).last(), Some(&(59 * 60 + 75, Pulse::Gone)));
    }

    #[test]
    fn after_a_sleep_the_peer_has_five_seconds_to_answer() {
        let mut watched = Watched::new();
        watched.heard(12);
        assert_eq!(watched.at(15), Pulse::Nothing);
        watched.slept = secs(8 * 3600);
        assert_eq!(watched.run(100), [(20, Pulse::Ping), (25, Pulse::Gone)]);
    }

    #[test]
    fn a_connection_that_has_survived_a_sleep_goes_on() {
        let mut watched = Watched::new();
        watched.slept = secs(60);
        assert_eq!(watched.run(9), [(5, Pulse::Ping)]);
        watched.heard(6);
        assert_eq!(watched.run(60), [(35, Pulse::Ping)]);
    }

    #[test]
    fn a_wall_clock_that_is_set_back_is_no_sleep() {
        let mut watched = Watched::new();
        watched.slept = secs(60);
        assert_eq!(watched.at(5), Pulse::Ping);
        watched.heard(5);
        watched.slept = secs(0);
        assert_eq!(watched.run(20), []);
    }
}
