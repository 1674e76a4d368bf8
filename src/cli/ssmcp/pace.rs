//! Whether a copy is as fast as the agent on the node lets it be, and what would help.
//!
//! The agent reads 1024 bytes from sshd, sends them and sleeps for a millisecond, whatever the machine and the network:
//! that is 0.6 to 1 MB/s for each SSM session on its way down. Nothing at this end changes it but more sessions, or bytes
//! that need not be sent.

use std::time::{Duration, Instant};

use crate::copy::{Streams, Totals};

/// Bytes a second and stream between which the agent's pace is the likely reason.
const LEAST: u64 = 550_000;
const MOST: u64 = 1_000_000;
/// How long a rate is measured before it is judged, with the same streams all the time.
const MEASURE: Duration = Duration::from_secs(3);
/// What is over sooner needs no advice.
const WORTHWHILE: Duration = Duration::from_secs(10);

/// Watches a copy from a node and has something to say once. Pure.
#[derive(Debug)]
pub(super) struct PaceWatch {
    streams: Streams,
    /// Compression was switched off, so that it could help.
    is_compression_off: bool,
    stage: Option<Stage>,
    is_done: bool,
}

#[derive(Debug, Clone, Copy)]
struct Stage {
    since: Instant,
    streams: usize,
    bytes: u64,
}

impl PaceWatch {
    pub(super) fn new(streams: Streams, is_compression_off: bool) -> Self {
        Self { streams, is_compression_off, stage: None, is_done: false }
    }

    /// Takes in how far the copy is; returns the advice, once.
    pub(super) fn handle(&mut self, now: Instant, totals: &Totals) -> Option<String> {
        let stage = match self.stage {
            _ if self.is_done || totals.bytes_done == 0 => return None,
            // Bytes that are lost with a stream and written again make a rate of no meaning.
            Some(stage) if stage.streams == totals.streams && stage.bytes <= totals.bytes_done => stage,
            _ => *self.stage.insert(Stage { since: now, streams: totals.streams, bytes: totals.bytes_done }),
        };
        let elapsed = now.saturating_duration_since(stage.since);
        if elapsed < MEASURE {
            return None;
        }
        self.stage = Some(Stage { since: now, bytes: totals.bytes_done, ..stage });
        let rate = per_second(totals.bytes_done - stage.bytes, elapsed);
        let left = totals.bytes.saturating_sub(totals.bytes_done);
        let is_long = !totals.is_all_found || left > rate.saturating_mul(WORTHWHILE.as_secs());
        if !(is_long && is_agents_pace(rate, stage.streams)) {
            return None;
        }
        self.is_done = true;
        Some(self.advice(rate, stage.streams))
    }

    fn advice(&self, rate: u64, open: usize) -> String {
        let over = if open == 1 { "one stream".to_owned() } else { format!("{open} streams") };
        let more = match open {
            Streams::MOST => None,
            _ if self.streams == Streams::auto() => Some(format!("more streams (`-j {}`)", Streams::MOST)),
            _ => Some("more streams (a larger `-j`)".to_owned()),
        };
        let compression = self.is_compression_off.then(|| "compression (`-C`)".to_owned());
        let remedies: Vec<_> = more.into_iter().chain(compression).collect();
        let remedy = if remedies.is_empty() { "less data".to_owned() } else { remedies.join(" or ") };
        let megabytes = format!("{}.{} MB/s", rate / 1_000_000, rate / 100_000 % 10);
        format!("{megabytes} over {over} is the pace of the node's SSM agent, not of the network; {remedy} would help")
    }
}

/// Whether so many bytes a second over so many streams are what the agent's pause after each kilobyte leaves.
fn is_agents_pace(bytes_per_second: u64, streams: usize) -> bool {
    (LEAST..=MOST).contains(&(bytes_per_second / (streams as u64).max(1)))
}

fn per_second(bytes: u64, elapsed: Duration) -> u64 {
    let milliseconds = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
    bytes.saturating_mul(1000) / milliseconds
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said about a copy of 1 GB that moves so many bytes a second for so many seconds.
    fn said(streams: Streams, open: usize, rate: u64, seconds: u64) -> Vec<String> {
        let (mut watch, start) = (PaceWatch::new(streams, open == 1), Instant::now());
        let tick = |tenth: u64| {
            let mut totals = Totals { bytes: 1_000_000_000, is_all_found: true, streams: open, ..Totals::default() };
            totals.bytes_done = rate * tenth / 10;
            watch.handle(start + Duration::from_millis(100 * tenth), &totals)
        };
        (0..seconds * 10).filter_map(tick).collect()
    }

    #[test]
    fn the_agents_pace_is_told_once_with_what_helps() {
        let lines = said(Streams::exactly(1), 1, 700_000, 60);
        assert_eq!(
            lines,
            ["0.7 MB/s over one stream is the pace of the node's SSM agent, not of the network; more streams \
              (a larger `-j`) or compression (`-C`) would help"]
        );
        let lines = said(Streams::auto(), 8, 5_600_000, 4);
        assert_eq!((lines.len(), lines[0].contains("5.6 MB/s over 8 streams")), (1, true), "{lines:?}");
        assert!(lines[0].ends_with("; more streams (`-j 16`) would help"), "{lines:?}");
        let lines = said(Streams::exactly(16), 16, 11_200_000, 4);
        assert!(lines[0].ends_with("; less data would help"), "{lines:?}");
    }

    #[test]
    fn what_moves_faster_or_slower_has_other_reasons() {
        for rate in [100_000, 300_000, 1_500_000, 90_000_000] {
            assert_eq!(said(Streams::exactly(1), 1, rate, 20), [""; 0], "{rate}");
        }
    }

    #[test]
    fn what_is_soon_over_or_just_begun_is_not_worth_a_line() {
        assert_eq!(said(Streams::exactly(1), 1, 700_000, 3), [""; 0]);
        let mut watch = PaceWatch::new(Streams::exactly(1), false);
        let start = Instant::now();
        for second in 0..10 {
            let bytes_done = 700_000 * second;
            let totals = Totals { bytes: 7_000_000, bytes_done, is_all_found: true, streams: 1, ..Totals::default() };
            assert_eq!(watch.handle(start + Duration::from_secs(second), &totals), None);
        }
    }

    #[test]
    fn streams_that_come_and_go_are_not_judged_by_a_rate_across() {
        let (mut watch, start) = (PaceWatch::new(Streams::auto(), false), Instant::now());
        for second in 0..30 {
            let streams = 1 + usize::try_from(second / 2 % 2).unwrap();
            let totals = Totals { bytes: 1 << 40, bytes_done: 700_000 * second, streams, ..Totals::default() };
            assert_eq!(watch.handle(start + Duration::from_secs(second), &totals), None);
        }
    }
}
