//! When a copy gets more streams. Pure: the driver tells what it sees and opens what is wanted.

use std::fmt;
use std::time::{Duration, Instant};

use crate::copy::Totals;

/// How many streams a copy may use. The default is [`Streams::auto`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Streams {
    most: usize,
    is_auto: bool,
}

impl Streams {
    /// Most streams of one side.
    pub const MOST: usize = 16;

    /// One at first; more, up to 8, while the rest of the copy takes longer than opening them is worth (2 s, or down to
    /// 0.5 s where a stream opens quickly) and each step makes it faster.
    pub fn auto() -> Self {
        Self { most: 8, is_auto: true }
    }

    /// So many, 1 to [`Streams::MOST`], as far as there is work for them.
    pub fn exactly(streams: usize) -> Self {
        Self { most: streams.clamp(1, Self::MOST), is_auto: false }
    }
}

impl Default for Streams {
    fn default() -> Self {
        Self::auto()
    }
}

/// Work that is worth a stream: fewer bytes and files than this are done before the stream is open.
const BYTES_WORTH_A_STREAM: u64 = 256 * 1024;
const FILES_WORTH_A_STREAM: u64 = 16;
/// What opening a stream is taken to cost, in seconds, until one has been opened: a copy that is over sooner is left alone.
const WORTHWHILE: f64 = 2.0;
/// It costs that at least, and no more than `WORTHWHILE`.
const LEAST_WORTHWHILE: f64 = 0.5;
/// A new stream earns its opening, and its window's growth after that, in so many times as long as the opening took.
const EARNED_IN: f64 = 3.0;
/// How long a number of streams is watched before it is judged.
const MEASURE: Duration = Duration::from_millis(400);
/// In one step the streams become so many times as many.
const STEP: usize = 4;
/// The part of the ideal gain that a step has to bring for another to follow.
const GAIN: f64 = 0.3;
/// The first wait after a stream that did not open; each further one is twice as long.
const BACK_OFF: Duration = Duration::from_secs(5);
/// After so many that did not open no more are tried.
const MAX_REFUSALS: u32 = 4;

/// Decides how many streams there should be.
#[derive(Debug)]
pub(super) struct Growth {
    streams: Streams,
    stage: Option<Stage>,
    before: Option<(usize, Speed)>,
    is_full: bool,
    refusals: u32,
    not_before: Option<Instant>,
    /// The most that had been copied when all streams were lost, in bytes and files.
    best: Option<u64>,
    /// What was told last about why there are not more.
    told: Option<Enough>,
    /// What opening a stream is taken to cost, in seconds.
    cost: f64,
}

/// Why there are no more streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Enough {
    /// The last step brought little.
    Full,
    /// What is left is done sooner than a stream is open.
    SoonOver,
    /// What is left keeps no more of them busy.
    LittleLeft,
    /// There are as many as were allowed.
    Most,
}

impl fmt::Display for Enough {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "the last ones made it hardly faster",
            Self::SoonOver => "what is left is done before another is open",
            Self::LittleLeft => "what is left keeps no more of them busy",
            Self::Most => "there are as many as are allowed",
        })
    }
}

/// A time in which the number of streams did not change.
#[derive(Debug, Clone, Copy)]
struct Stage {
    open: usize,
    since: Instant,
    at: Totals,
}

/// Bytes and files a second.
#[derive(Debug, Clone, Copy)]
struct Speed {
    bytes: f64,
    files: f64,
}

impl Growth {
    pub(super) fn new(streams: Streams) -> Self {
        Self {
            streams,
            stage: None,
            before: None,
            is_full: false,
            refusals: 0,
            not_before: None,
            best: None,
            told: None,
            cost: WORTHWHILE,
        }
    }

    fn tell(&mut self, enough: Enough, open: usize) {
        if self.told.replace(enough) != Some(enough) {
            tracing::info!(target: "ssmssh::detail", "no more streams than {open}: {enough}");
        }
    }

    /// How many streams there should be, when `open` are open and `opening` are on their way.
    pub(super) fn wanted(&mut self, now: Instant, totals: Totals, open: usize, opening: usize) -> usize {
        let auto = if self.streams.is_auto { self.measure(now, totals, open, opening) } else { self.streams.most };
        if self.is_held(now) {
            return open;
        }
        let (useful, worth) = (auto.clamp(1, self.streams.most), worth(totals));
        if worth < useful && totals.is_all_found && totals.files > 0 {
            self.tell(Enough::LittleLeft, worth.max(open));
        } else if open == self.streams.most && open > 1 {
            self.tell(Enough::Most, open);
        }
        useful.min(worth)
    }

    /// Whether none is to be opened at present, in place of another either.
    pub(super) fn is_held(&self, now: Instant) -> bool {
        self.has_given_up() || self.not_before.is_some_and(|until| now < until)
    }

    /// Whether none is to be opened any more, unless all are lost.
    pub(super) fn has_given_up(&self) -> bool {
        self.refusals >= MAX_REFUSALS
    }

    /// All streams are lost. If more was copied than the last time, another is opened at once, and what was refused before
    /// counts no more. If not, it is as if it had been refused: so it comes to an end.
    pub(super) fn handle_cut_off(&mut self, now: Instant, totals: Totals) {
        let copied = totals.bytes_done.saturating_add(totals.files_done);
        if self.best.is_some_and(|best| copied <= best) {
            self.handle_refused(now);
        } else {
            (self.best, self.refusals, self.not_before) = (Some(copied), 0, None);
        }
    }

    /// A stream was opened, which took so long.
    pub(super) fn handle_opened(&mut self, took: Duration) {
        self.cost = (EARNED_IN * took.as_secs_f64()).clamp(LEAST_WORTHWHILE, WORTHWHILE);
    }

    /// A stream could not be opened: not now, and perhaps not at all. Those that were on their way with it fail for the
    /// same reason, which counts once.
    pub(super) fn handle_refused(&mut self, now: Instant) {
        if self.not_before.is_some_and(|until| now < until) {
            return;
        }
        self.not_before = Some(now + BACK_OFF * 2u32.saturating_pow(self.refusals));
        self.refusals += 1;
    }

    fn measure(&mut self, now: Instant, totals: Totals, open: usize, opening: usize) -> usize {
        if totals.bytes_done == 0 && totals.files_done == 0 {
            return open;
        }
        let stage = match self.stage {
            Some(stage) if stage.open == open => stage,
            changed => {
                // With a stream lost there is room again.
                self.is_full &= changed.is_none_or(|stage| stage.open < open);
                *self.stage.insert(Stage { open, since: now, at: totals })
            }
        };
        let elapsed = now.saturating_duration_since(stage.since);
        if opening > 0 {
            return open + opening;
        }
        if elapsed < MEASURE || self.is_full {
            return open;
        }
        let speed = Speed::between(&stage.at, &totals, elapsed);
        self.stage = Some(Stage { since: now, at: totals, ..stage });
        self.judge(speed, totals, open)
    }

    fn judge(&mut self, speed: Speed, totals: Totals, open: usize) -> usize {
        if let Some((fewer, before)) = self.before
            && fewer < open
            && !speed.has_gained(before, ratio(open, fewer))
        {
            self.is_full = true;
            self.tell(Enough::Full, open);
            return open;
        }
        let seconds = speed.seconds_for(totals);
        if speed.bytes + speed.files <= 0.0 {
            return open;
        }
        if seconds <= self.cost {
            self.tell(Enough::SoonOver, open);
            return open;
        }
        self.before = Some((open, speed));
        // As many as bring the rest down to what opening a stream costs.
        let useful = (1..=self.streams.most).find(|streams| seconds * ratio(open, *streams) <= self.cost);
        let wanted = useful.unwrap_or(self.streams.most).clamp(open, open * STEP);
        if wanted > open {
            let megabytes = speed.bytes / 1e6;
            tracing::info!(
                target: "ssmssh::detail",
                "{wanted} streams in place of {open}: at {megabytes:.1} MB/s what is left takes {seconds:.1} s"
            );
        }
        wanted
    }
}

impl Speed {
    fn between(before: &Totals, now: &Totals, elapsed: Duration) -> Self {
        let per_second = |done: u64| float(done) / elapsed.as_secs_f64();
        Self {
            bytes: per_second(written(now).saturating_sub(written(before))),
            files: per_second(now.files_done.saturating_sub(before.files_done)),
        }
    }

    fn has_gained(self, before: Self, ideal: f64) -> bool {
        let enough = 1.0 + (ideal - 1.0) * GAIN;
        self.bytes >= before.bytes * enough || (before.files > 0.0 && self.files >= before.files * enough)
    }

    /// How long what is left takes, by its bytes or by its files, whichever is the longer: a tree of small files takes
    /// longer than its bytes. In a time in which no file has ended, the bytes tell.
    fn seconds_for(self, totals: Totals) -> f64 {
        let bytes = float(bytes_left(totals)) / self.bytes.max(1.0);
        let files = if self.files > 0.0 { float(files_left(totals)) / self.files } else { 0.0 };
        bytes.max(files)
    }
}

/// How many streams what is left can keep busy.
fn worth(totals: Totals) -> usize {
    let streams = 1 + bytes_left(totals) / BYTES_WORTH_A_STREAM + files_left(totals) / FILES_WORTH_A_STREAM;
    usize::try_from(streams).unwrap_or(usize::MAX)
}

fn bytes_left(totals: Totals) -> u64 {
    totals.bytes.saturating_sub(totals.bytes_done)
}

/// What an earlier run wrote says nothing about the speed of this one.
fn written(totals: &Totals) -> u64 {
    totals.bytes_done.saturating_sub(totals.bytes_kept)
}

fn files_left(totals: Totals) -> u64 {
    totals.files.saturating_sub(totals.files_done)
}

fn ratio(of: usize, to: usize) -> f64 {
    float(of as u64) / float(to as u64)
}

#[expect(clippy::cast_precision_loss, reason = "a speed needs no more than 52 bits")]
fn float(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    /// A copy of one file, `rate` bytes a second each stream, until it is done or `limit` streams share the link.
    struct World {
        growth: Growth,
        now: Instant,
        totals: Totals,
        open: usize,
    }

    impl World {
        fn new(streams: Streams, bytes: u64) -> Self {
            let totals = Totals { files: 1, bytes, is_all_found: true, ..Totals::default() };
            Self { growth: Growth::new(streams), now: Instant::now(), totals, open: 1 }
        }

        /// Lets the copy go on for so long; every stream that is wanted opens at once. Returns how many there are.
        fn pass(&mut self, milliseconds: u64, rate: impl Fn(usize) -> u64) -> usize {
            for _ in 0..milliseconds / 50 {
                self.now += Duration::from_millis(50);
                self.totals.bytes_done = self.totals.bytes.min(self.totals.bytes_done + rate(self.open) / 20);
                self.open = self.open.max(self.growth.wanted(self.now, self.totals, self.open, 0));
            }
            self.open
        }
    }

    fn paced(streams: usize) -> u64 {
        streams as u64 * 700_000
    }

    #[test]
    fn a_long_copy_gets_all_streams_within_two_measurements() {
        let mut world = World::new(Streams::auto(), 64 * MIB);
        assert_eq!(world.pass(300, paced), 1);
        assert_eq!(world.pass(300, paced), 4);
        assert_eq!(world.pass(600, paced), 8);
    }

    #[test]
    fn a_copy_that_is_soon_over_is_left_alone() {
        assert_eq!(World::new(Streams::auto(), MIB).pass(3000, paced), 1);
    }

    #[test]
    fn where_streams_open_quickly_shorter_copies_get_them_too() {
        for (milliseconds, streams) in [(100, 4), (300, 2), (600, 1), (5000, 1)] {
            let mut world = World::new(Streams::auto(), 14 * MIB / 10);
            world.growth.handle_opened(Duration::from_millis(milliseconds));
            assert_eq!(world.pass(3000, paced), streams, "{milliseconds} ms");
        }
    }

    #[test]
    fn streams_that_share_a_full_link_are_not_followed_by_more() {
        assert_eq!(World::new(Streams::auto(), 1024 * MIB).pass(5000, |_| 2_000_000), 4);
    }

    #[test]
    fn a_number_that_was_asked_for_is_taken_as_far_as_there_is_work() {
        assert_eq!(World::new(Streams::exactly(6), 64 * MIB).pass(50, |_| 0), 6);
        assert_eq!(World::new(Streams::exactly(6), 100_000).pass(50, |_| 0), 1);
        assert_eq!(World::new(Streams::exactly(99), 64 * MIB).pass(50, |_| 0), Streams::MOST);
    }

    #[test]
    fn refusals_at_the_same_time_are_one() {
        let mut world = World::new(Streams::exactly(4), 64 * MIB);
        for _ in 0..MAX_REFUSALS {
            world.growth.handle_refused(world.now);
        }
        assert_eq!((world.pass(4900, |_| 0), world.pass(200, |_| 0)), (1, 4));
    }

    #[test]
    fn after_a_refusal_nothing_is_asked_for_a_while_and_in_the_end_no_more() {
        let mut world = World::new(Streams::exactly(4), 64 * MIB);
        world.growth.handle_refused(world.now);
        assert_eq!((world.pass(4900, |_| 0), world.pass(200, |_| 0)), (1, 4));
        world.open = 1;
        for _ in 1..MAX_REFUSALS {
            world.growth.handle_refused(world.now);
            assert!(world.growth.is_held(world.now));
            world.pass(60_000, |_| 0);
            world.open = 1;
        }
        world.growth.handle_refused(world.now);
        assert_eq!(world.pass(600_000, |_| 0), 1);
    }

    #[test]
    fn when_all_are_lost_others_are_tried_as_long_as_each_carries_something() {
        let mut world = World::new(Streams::auto(), 64 * MIB);
        for _ in 0..10 {
            world.growth.handle_refused(world.now);
            world.now += Duration::from_mins(1);
        }
        assert!(world.growth.has_given_up());
        for copied in 1..100 {
            (world.open, world.totals.bytes_done) = (0, copied);
            world.growth.handle_cut_off(world.now, world.totals);
            assert_eq!(world.pass(50, |_| 0), 1, "at once, and one at least");
        }
        for _ in 0..MAX_REFUSALS {
            assert!(!world.growth.has_given_up());
            world.open = 0;
            world.growth.handle_cut_off(world.now, world.totals);
            assert_eq!(world.pass(4900, |_| 0), 0, "without a byte it has to wait");
            world.pass(60_000, |_| 0);
        }
        assert!(world.growth.has_given_up());
    }
}
