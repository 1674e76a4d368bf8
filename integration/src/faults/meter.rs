//! The limit on a client's frames.

use std::{
    num::NonZeroU32,
    time::{Duration, Instant},
};

const SECOND: Duration = Duration::from_secs(1);
/// Seconds on end above the limit before it is enforced: bursts pass.
const TOLERANCE: u32 = 2;

/// Counts frames by the second. Pure.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    second: Option<Instant>,
    frames: u32,
    seconds_above: u32,
}

impl Meter {
    /// One more frame. True when each of the last two seconds had more than `limit`; counting starts anew then.
    pub(crate) fn exceeds(&mut self, limit: NonZeroU32, now: Instant) -> bool {
        let second = *self.second.get_or_insert(now);
        let age = now.saturating_duration_since(second);
        if age >= SECOND {
            let above = self.frames > limit.get() && age < 2 * SECOND;
            self.seconds_above = if above { self.seconds_above + 1 } else { 0 };
            self.second = Some(if age < 2 * SECOND { second + SECOND } else { now });
            self.frames = 0;
        }
        self.frames += 1;
        let exceeded = self.seconds_above >= TOLERANCE;
        if exceeded {
            *self = Self::default();
        }
        exceeded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: NonZeroU32 = NonZeroU32::new(1000).unwrap();

    /// When `rate` frames a second are found to be too many.
    fn exceeded_after(meter: &mut Meter, rate: u32, seconds: u32) -> Option<Duration> {
        let start = Instant::now();
        let gaps = (0..rate * seconds).map(|number| SECOND * number / rate);
        gaps.into_iter().find(|time| meter.exceeds(LIMIT, start + *time))
    }

    #[test]
    fn what_keeps_to_the_limit_passes_for_ever() {
        assert_eq!(exceeded_after(&mut Meter::default(), 1000, 10), None);
    }

    #[test]
    fn more_than_the_limit_passes_for_two_seconds() {
        let time = exceeded_after(&mut Meter::default(), 1100, 10).unwrap();
        assert!((2 * SECOND..3 * SECOND).contains(&time), "{time:?}");
    }

    #[test]
    fn a_burst_passes() {
        let mut meter = Meter::default();
        let start = Instant::now();
        assert!((0..1900).all(|_| !meter.exceeds(LIMIT, start)));
        let later = start + Duration::from_millis(1500);
        assert!((0..900).all(|_| !meter.exceeds(LIMIT, later)));
        let later = start + Duration::from_millis(2500);
        assert!((0..900).all(|_| !meter.exceeds(LIMIT, later)));
    }
}
