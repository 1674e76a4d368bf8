//! How fast the node reads its port.

use std::time::{Duration, Instant};

/// The pace at which the node model reads its port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Pace {
    /// As the real agent: 1024 bytes at most, then a pause of 1 ms. About 0.8 MB/s. The default.
    #[default]
    Agent,
    /// As fast as the port gives, 16 KiB at most. For tests that are not about the agent's pace.
    Ideal,
}

impl Pace {
    pub(super) fn read_size(self) -> usize {
        match self {
            Self::Agent => 1024,
            Self::Ideal => 16 * 1024,
        }
    }

    /// From one read to the next, when the port always has something: 1 ms of sleep as it was measured, and the read itself.
    fn period(self) -> Duration {
        match self {
            Self::Agent => Duration::from_micros(1250),
            Self::Ideal => Duration::ZERO,
        }
    }
}

/// When the port may be read again. A late wake-up is made good, so that the rate does not depend on the timer's grain.
#[derive(Debug)]
pub(super) struct Pump {
    pace: Pace,
    next: Option<Instant>,
}

/// Most lateness that is made good; after a longer one the port was simply idle.
const CATCH_UP: Duration = Duration::from_millis(10);

impl Pump {
    pub(super) fn new(pace: Pace) -> Self {
        Self { pace, next: None }
    }

    /// When the next read may happen; none for at once.
    pub(super) fn next_read(&self, now: Instant) -> Option<Instant> {
        self.next.filter(|next| *next > now)
    }

    /// A read has happened.
    pub(super) fn pause(&mut self, now: Instant) {
        let planned = self.next.filter(|next| now.saturating_duration_since(*next) < CATCH_UP).unwrap_or(now);
        self.next = Some(planned + self.pace.period());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_wake_ups_do_not_lower_the_rate() {
        let start = Instant::now();
        let mut pump = Pump::new(Pace::Agent);
        let mut reads = 0;
        for wake_up in (0..1000).map(Duration::from_millis) {
            while pump.next_read(start + wake_up).is_none() {
                pump.pause(start + wake_up);
                reads += 1;
            }
        }
        assert!((795..=805).contains(&reads), "{reads}");
    }

    #[test]
    fn an_idle_port_saves_nothing_up() {
        let start = Instant::now();
        let mut pump = Pump::new(Pace::Agent);
        pump.pause(start);
        let later = start + Duration::from_secs(5);
        pump.pause(later);
        assert!(pump.next_read(later).is_some());
    }
}
