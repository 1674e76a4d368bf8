//! Round-trip estimator and retransmission timeout, after RFC 6298.

use std::time::Duration;

/// Before there is a sample; what both official implementations start with.
const INITIAL_TIMEOUT: Duration = Duration::from_millis(200);
/// The least that a timeout is above the smoothed round trip, and that anything is resent after.
pub(super) const GRANULARITY: Duration = Duration::from_millis(10);
/// RFC 6298 (2.5) wants a bound of at least this.
const MAX_TIMEOUT: Duration = Duration::from_mins(1);

/// Fed with samples of messages sent once only (Karn's rule), which is the caller's business.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RttEstimator {
    /// Smoothed round trip and its variation.
    smoothed: Option<(Duration, Duration)>,
    latest: Duration,
    minimum: Option<Duration>,
    /// Eighths of a round trip, beyond the first, that messages have been seen to overtake one another by.
    slack: u32,
}

impl RttEstimator {
    pub(super) fn record(&mut self, sample: Duration) {
        let (mean, variation) = match self.smoothed {
            None => (sample, sample / 2),
            Some((mean, variation)) => (mean * 7 / 8 + sample / 8, variation * 3 / 4 + mean.abs_diff(sample) / 4),
        };
        self.smoothed = Some((mean, variation));
        self.latest = sample;
        self.minimum = Some(self.minimum.map_or(sample, |minimum| minimum.min(sample)));
    }

    pub(super) fn smoothed(&self) -> Option<Duration> {
        self.smoothed.map(|(mean, _)| mean)
    }

    /// The shortest sample: an answer that comes sooner than this after a transmission is not an answer to it.
    pub(super) fn minimum(&self) -> Duration {
        self.minimum.unwrap_or_default()
    }

    /// How long to wait for an acknowledgement when nothing else is heard.
    pub(super) fn timeout(&self) -> Duration {
        let timeout = self.smoothed.map(|(mean, variation)| mean + GRANULARITY.max(variation * 4));
        timeout.unwrap_or(INITIAL_TIMEOUT).min(MAX_TIMEOUT)
    }

    /// How long after its transmission a message counts as lost when later ones have arrived: about one round trip,
    /// as in RFC 9002, 6.1.2.
    pub(super) fn reordering(&self) -> Duration {
        let round_trip = self.smoothed.map_or(INITIAL_TIMEOUT, |(mean, _)| mean.max(self.latest));
        (round_trip * (9 + self.slack) / 8).max(GRANULARITY)
    }

    /// A message was taken for lost and was not: it had only been overtaken. As in RFC 8985, more is allowed for from
    /// now on, up to two round trips.
    pub(super) fn note_overtaking(&mut self) {
        self.slack = (self.slack + 1).min(7);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn fed(samples: impl IntoIterator<Item = u64>) -> RttEstimator {
        let mut rtt = RttEstimator::default();
        samples.into_iter().for_each(|sample| rtt.record(ms(sample)));
        rtt
    }

    #[test]
    fn without_a_sample_the_timeout_is_the_initial_one() {
        assert_eq!(fed([]).timeout(), INITIAL_TIMEOUT);
        assert_eq!(fed([]).smoothed(), None);
    }

    #[test]
    fn the_first_sample_sets_the_mean_and_half_of_it_as_variation() {
        assert_eq!(fed([40]).smoothed(), Some(ms(40)));
        assert_eq!(fed([40]).timeout(), ms(40 + 4 * 20));
    }

    #[test]
    fn later_samples_weigh_an_eighth_and_their_distance_a_quarter() {
        let rtt = fed([40, 80]);
        assert_eq!(rtt.smoothed(), Some(ms(45)));
        assert_eq!(rtt.timeout(), ms(45 + 4 * 25));
        assert_eq!(rtt.minimum(), ms(40));
    }

    #[test]
    fn a_steady_path_brings_the_timeout_down_to_the_granularity() {
        let rtt = fed([50; 100]);
        assert!(rtt.timeout() >= ms(60) && rtt.timeout() < ms(61), "{:?}", rtt.timeout());
    }

    #[test]
    fn a_path_slower_than_a_second_gets_a_timeout_to_match() {
        assert!(fed([8_000; 50]).timeout() > ms(8_000));
        assert_eq!(fed([600_000]).timeout(), MAX_TIMEOUT);
    }

    #[test]
    fn a_message_counts_as_lost_about_one_round_trip_after_it_was_sent() {
        assert_eq!(fed([80]).reordering(), ms(90));
        assert_eq!(fed([0]).reordering(), GRANULARITY);
        assert_eq!(fed([10, 80]).reordering(), ms(90));
    }

    #[test]
    fn a_path_that_reorders_is_given_up_to_two_round_trips() {
        let mut rtt = fed([80]);
        rtt.note_overtaking();
        assert_eq!(rtt.reordering(), ms(100));
        (0..100).for_each(|_| rtt.note_overtaking());
        assert_eq!(rtt.reordering(), ms(160));
    }
}
