//! When a frame may leave: a token bucket over all frames of one channel, resent ones and acknowledgements included.
//!
//! The service is reported to cut connections on which more than about 1,000 messages a second go for long. A bucket
//! lets what is small leave at once and bounds the long run: in any stretch of time `t` no more than `burst + rate × t`
//! frames leave. Nobody sleeps: an empty bucket gives no frame, and says when it will.
//!
//! Acknowledgements go first, and a quarter of the bucket is theirs alone, so that an upload that uses up every token
//! does not keep the agent waiting. They in turn let one other frame pass for every [`ACKS_IN_A_ROW`] of them, so that
//! a node that sends faster than this client may answer does not silence it.

use std::{
    num::NonZeroU32,
    time::{Duration, Instant},
};

/// Acknowledgements that may leave in a row while something else is waiting.
const ACKS_IN_A_ROW: u32 = 8;

/// What kind of frame wants to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Ack,
    Other,
}

#[derive(Debug)]
pub(super) struct Pacer {
    bucket: Option<Bucket>,
    acks_in_a_row: u32,
}

/// A bucket is known by the moment at which it will be full again: each frame moves that on by one interval.
#[derive(Debug)]
struct Bucket {
    /// The time in which one token comes.
    interval: Duration,
    /// Tokens in a full bucket.
    burst: u32,
    /// Tokens that only acknowledgements may take.
    reserve: u32,
    full_at: Option<Instant>,
}

impl Pacer {
    /// No limit without `frames_per_second`. A burst of 0 counts as 1.
    pub(super) fn new(frames_per_second: Option<NonZeroU32>, burst: u32) -> Self {
        let bucket = frames_per_second.map(|rate| Bucket {
            interval: Duration::from_nanos(1_000_000_000_u64.div_ceil(u64::from(rate.get()))),
            burst: burst.max(1),
            reserve: burst / 4,
            full_at: None,
        });
        Self { bucket, acks_in_a_row: 0 }
    }

    /// The class to go first when both are waiting.
    pub(super) fn first(&self) -> Class {
        if self.acks_in_a_row < ACKS_IN_A_ROW { Class::Ack } else { Class::Other }
    }

    /// Whether a frame of this class may leave.
    pub(super) fn allows(&self, class: Class, now: Instant) -> bool {
        self.opens_at(class).is_none_or(|opens_at| opens_at <= now)
    }

    /// When a frame of this class may leave; `None` is at any time.
    pub(super) fn opens_at(&self, class: Class) -> Option<Instant> {
        let may_use_reserve = class == Class::Ack || self.first() == class;
        self.bucket.as_ref()?.opens_at(may_use_reserve)
    }

    /// Notes that a frame leaves.
    pub(super) fn spend(&mut self, class: Class, now: Instant) {
        self.acks_in_a_row = if class == Class::Ack { self.acks_in_a_row.saturating_add(1) } else { 0 };
        if let Some(bucket) = &mut self.bucket {
            bucket.full_at = Some(bucket.full_at.map_or(now, |full_at| full_at.max(now)) + bucket.interval);
        }
    }
}

impl Bucket {
    fn opens_at(&self, may_use_reserve: bool) -> Option<Instant> {
        let reserve = if may_use_reserve { 0 } else { self.reserve };
        // One token more than the reserve is there so long before the bucket is full.
        let slack = self.interval * (self.burst - 1 - reserve);
        self.full_at?.checked_sub(slack)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::tests::start, *};

    fn pacer(rate: u32, burst: u32) -> Pacer {
        Pacer::new(NonZeroU32::new(rate), burst)
    }

    fn leave(pacer: &mut Pacer, class: Class, now: Instant) -> u32 {
        let mut count = 0;
        while count < 10_000 && pacer.allows(class, now) {
            pacer.spend(class, now);
            count += 1;
        }
        count
    }

    #[test]
    fn a_burst_leaves_at_once_and_the_rest_at_the_rate() {
        let (mut pacer, start) = (pacer(1000, 200), start());
        assert_eq!(leave(&mut pacer, Class::Ack, start), 200);
        assert_eq!(pacer.opens_at(Class::Ack), Some(start + Duration::from_millis(1)));
        assert_eq!(leave(&mut pacer, Class::Ack, start + Duration::from_millis(50)), 50);
        assert_eq!(leave(&mut pacer, Class::Ack, start + Duration::from_hours(1)), 200);
    }

    #[test]
    fn a_quarter_of_the_bucket_is_for_acknowledgements() {
        let (mut pacer, start) = (pacer(1000, 200), start());
        assert_eq!(leave(&mut pacer, Class::Other, start), 150);
        assert_eq!(pacer.opens_at(Class::Other), Some(start + Duration::from_millis(1)));
        assert!(pacer.allows(Class::Ack, start));
    }

    #[test]
    fn the_smallest_bucket_lets_one_frame_of_any_kind_pass_at_a_time() {
        for burst in [0, 1] {
            let (mut pacer, start) = (pacer(10, burst), start());
            assert_eq!(leave(&mut pacer, Class::Other, start), 1);
            assert_eq!(pacer.opens_at(Class::Ack), Some(start + Duration::from_millis(100)));
        }
    }

    #[test]
    fn without_a_rate_nothing_waits() {
        let (mut pacer, start) = (Pacer::new(None, 0), start());
        assert_eq!(leave(&mut pacer, Class::Other, start), 10_000);
    }

    #[test]
    fn acknowledgements_go_first_but_not_for_ever() {
        let (mut pacer, start) = (pacer(1000, 200), start());
        for _ in 0..ACKS_IN_A_ROW {
            assert_eq!(pacer.first(), Class::Ack);
            pacer.spend(Class::Ack, start);
        }
        assert_eq!(pacer.first(), Class::Other);
        pacer.spend(Class::Other, start);
        assert_eq!(pacer.first(), Class::Ack);
    }

    #[test]
    fn acknowledgements_that_take_every_token_leave_one_in_nine_to_the_rest() {
        let (mut pacer, mut now) = (pacer(1000, 200), start());
        leave(&mut pacer, Class::Ack, now);
        let mut others = 0;
        for _ in 0..900 {
            now += Duration::from_millis(1);
            let class = pacer.first();
            assert!(pacer.allows(class, now));
            pacer.spend(class, now);
            others += u32::from(class == Class::Other);
        }
        assert_eq!(others, 100);
    }

    proptest! {
        #[test]
        fn no_stretch_of_time_sees_more_than_the_burst_and_the_rate(
            rate in 1..2000u32, burst in 1..300u32, pauses in prop::collection::vec(0..100_000u64, 1..200),
        ) {
            let (mut pacer, mut now, mut left) = (pacer(rate, burst), start(), Vec::new());
            for pause in pauses {
                now += Duration::from_micros(pause);
                let class = if pause % 3 == 0 { Class::Ack } else { Class::Other };
                let count = leave(&mut pacer, class, now);
                left.extend(std::iter::repeat_n(now, count as usize));
            }
            for (first, from) in left.iter().enumerate().step_by(7) {
                for (last, to) in left.iter().enumerate().skip(first).step_by(5) {
                    let allowed = f64::from(burst) + f64::from(rate) * (*to - *from).as_secs_f64();
                    #[expect(clippy::cast_precision_loss, reason = "the count is small")]
                    let count = (last - first + 1) as f64;
                    prop_assert!(count <= allowed + 1e-6, "{count} frames, {allowed} allowed");
                }
            }
        }
    }
}
