//! When to ping, and when a silent peer counts as gone. Pure: the clocks are given.

use std::time::{Duration, Instant, SystemTime};

/// How often the clocks are compared. A timer does not run on while the machine sleeps: this is how late, at most, the
/// sleep is noticed after its end.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// A wall clock that has gained this much on the timers' clock tells of a sleep. Set by hand it costs one ping.
const SLEEP: Duration = Duration::from_secs(5);

/// After a sleep the connection is most likely gone, and whoever is there answers within this.
const ANSWER_AFTER_SLEEP: Duration = Duration::from_secs(5);

/// Silence after which a peer is asked that was talking until then, or that owes an answer.
const ASK_AFTER: Duration = Duration::from_secs(5);

/// Whoever is there answers that within this.
const ANSWER: Duration = Duration::from_secs(10);

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
    /// After a sleep, or where the peer was asked: until when it must have been heard.
    answer_by: Option<Instant>,
    /// Since when the peer owes an answer to what was sent.
    owed_since: Option<Instant>,
    /// What was heard last were data, which might go on.
    is_talking: bool,
}

impl Liveness {
    pub(super) fn new(limits: KeepAlive, now: Instant, wall: SystemTime) -> Self {
        let (next_ping, looked) = (now + limits.interval, (now, wall));
        Self { limits, heard: now, next_ping, looked, answer_by: None, owed_since: None, is_talking: false }
    }

    /// Anything has arrived: data, or a sign of life only.
    pub(super) fn heard(&mut self, now: Instant, is_data: bool) {
        self.heard = now;
        self.answer_by = None;
        self.is_talking = is_data;
    }

    /// When anything was heard last.
    pub(super) fn last_heard(&self) -> Instant {
        self.heard
    }

    /// Whether something was sent that the far end has to answer.
    pub(super) fn owes(&mut self, is_owed: bool, now: Instant) {
        self.owed_since = is_owed.then(|| self.owed_since.unwrap_or(now));
    }

    /// Nothing can be heard, because nothing is read.
    pub(super) fn not_reading(&mut self, now: Instant) {
        self.heard = now;
        self.answer_by = self.answer_by.map(|_| now + ANSWER);
    }

    /// When to call `check`.
    pub(super) fn deadline(&self) -> Instant {
        let silence = self.heard + self.limits.dead_after;
        let next = self.next_ping.min(silence).min(self.looked.0 + LOOK_INTERVAL);
        self.answer_by.or_else(|| self.asks_at()).map_or(next, |moment| moment.min(next))
    }

    /// When to ask a peer that has fallen silent. One question at a time.
    fn asks_at(&self) -> Option<Instant> {
        let since = if self.is_talking { Some(self.heard) } else { self.owed_since.map(|owed| owed.max(self.heard)) };
        since.filter(|_| self.answer_by.is_none()).map(|since| since + ASK_AFTER)
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
        let asks = self.asks_at().is_some_and(|asks_at| asks_at <= now);
        if asks {
            self.is_talking = false;
            self.answer_by = Some(now + ANSWER);
        } else if now < self.next_ping {
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
            self.liveness.heard(self.start + secs(at), false);
        }

        fn talks(&mut self, at: u64) {
            self.liveness.heard(self.start + secs(at), true);
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
    fn a_peer_that_stops_in_the_middle_is_asked_at_once_and_gone_ten_seconds_later() {
        let mut watched = Watched::new();
        watched.talks(7);
        assert_eq!(watched.run(100), [(12, Pulse::Ping), (22, Pulse::Gone)]);
    }

    #[test]
    fn a_peer_that_owes_an_answer_is_asked_at_once_and_gone_ten_seconds_later() {
        let mut watched = Watched::new();
        watched.heard(20);
        watched.liveness.owes(true, watched.start + secs(22));
        assert_eq!(watched.run(100), [(27, Pulse::Ping), (37, Pulse::Gone)]);
    }

    #[test]
    fn an_answer_to_the_question_is_enough_and_who_has_said_all_is_asked_once() {
        let mut watched = Watched::new();
        watched.talks(7);
        assert_eq!(watched.run(12), [(12, Pulse::Ping)]);
        watched.heard(13);
        assert_eq!(watched.run(41), []);
        assert_eq!(watched.run(50), [(42, Pulse::Ping)], "as always when idle");
    }

    #[test]
    fn who_owes_an_answer_and_answers_questions_lives_and_is_asked_again() {
        let mut watched = Watched::new();
        watched.liveness.owes(true, watched.start);
        for at in [5, 11, 17, 23] {
            assert_eq!(watched.run(at), [(at, Pulse::Ping)]);
            watched.heard(at + 1);
        }
        watched.liveness.owes(false, watched.start + secs(24));
        assert_eq!(watched.run(52), []);
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
