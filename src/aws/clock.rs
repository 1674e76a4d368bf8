//! How far this machine's clock is from the service's: signatures five minutes off are not accepted.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use aws_sdk_ssm::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_ssm::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_smithy_runtime_api::box_error::BoxError;

/// Less is neither corrected nor told: it is what an answer takes, and well within what the service allows.
const NOTABLE: u64 = 60;

/// The seconds that the service's clock is ahead of this one, from the last of its answers. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Clock(Arc<AtomicI64>);

/// How wrong a clock is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Skew(i64);

impl Clock {
    /// Learns the service's time. Whether that changes what is signed.
    pub(super) fn learn(&self, service: SystemTime, here: SystemTime) -> bool {
        let ahead = match service.duration_since(here) {
            Ok(ahead) => seconds(ahead),
            Err(behind) => -seconds(behind.duration()),
        };
        let before = self.0.swap(ahead, Ordering::Relaxed);
        let corrected = |ahead: i64| if ahead.unsigned_abs() >= NOTABLE { ahead } else { 0 };
        corrected(before).abs_diff(corrected(ahead)) >= NOTABLE
    }

    /// The time that a signature is made with.
    pub(super) fn correct(&self, here: SystemTime) -> SystemTime {
        let Some(Skew(ahead)) = self.skew() else { return here };
        let by = Duration::from_secs(ahead.unsigned_abs());
        let corrected = if ahead > 0 { here.checked_add(by) } else { here.checked_sub(by) };
        corrected.unwrap_or(here)
    }

    /// How wrong this machine's clock is, if it is.
    pub(super) fn skew(&self) -> Option<Skew> {
        let ahead = self.0.load(Ordering::Relaxed);
        (ahead.unsigned_abs() >= NOTABLE).then_some(Skew(ahead))
    }
}

fn seconds(time: Duration) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

/// `2 h slow`
impl fmt::Display for Skew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = self.0.unsigned_abs();
        let direction = if self.0 > 0 { "slow" } else { "fast" };
        if by < 5400 {
            write!(f, "{} min {direction}", (by + 30) / 60)
        } else if by < 172_800 {
            write!(f, "{} h {direction}", (by + 1800) / 3600)
        } else {
            write!(f, "{} days {direction}", by / 86_400)
        }
    }
}

/// Every answer of the API names its time.
impl Intercept for Clock {
    fn name(&self) -> &'static str {
        "Clock"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date = context.response().headers().get("date");
        if let Some(service) = date.and_then(|date| httpdate::parse_http_date(date).ok())
            && self.learn(service, SystemTime::now())
            && let Some(skew) = self.skew()
        {
            tracing::info!(target: "ssmssh::detail", "this machine's clock is {skew}; requests are signed with the service's time");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_wrong_is_corrected_and_told_in_words() {
        let clock = Clock::default();
        let here = SystemTime::UNIX_EPOCH + Duration::from_hours(500_000);
        assert!(!clock.learn(here + Duration::from_secs(59), here), "as good as right");
        assert_eq!((clock.correct(here), clock.skew()), (here, None));
        for (ahead, said) in [(90, "2 min slow"), (7_205, "2 h slow"), (400_000, "4 days slow")] {
            let ahead = Duration::from_secs(ahead);
            assert!(clock.learn(here + ahead, here));
            assert_eq!(clock.correct(here), here + ahead);
            assert_eq!(clock.skew().map(|skew| skew.to_string()).as_deref(), Some(said));
            assert!(clock.learn(here - ahead, here));
            assert_eq!(clock.correct(here), here - ahead);
            assert_eq!(clock.skew().map(|skew| skew.to_string()), Some(said.replace("slow", "fast")));
        }
        assert!(clock.learn(here, here), "it was set right");
        assert_eq!(clock.correct(here), here);
    }
}
