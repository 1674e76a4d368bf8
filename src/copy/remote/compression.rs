//! Whether streams compress what they carry: what the data says, and when that is worth a change.
//!
//! Pieces that pass are sampled either way: what shrinks to three quarters or less is worth compressing on a link slower
//! than zlib. Only what is opened later can compress, so a plain stream is replaced where enough is left to do.

use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use flate2::write::DeflateEncoder;

use crate::copy::Totals;

/// Whether the streams of a node compress what they carry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Compression {
    /// None does. The default.
    #[default]
    Off,
    /// All do. Whoever opened the first has seen to it.
    On,
    /// The first does not, and a sample of what it carries decides about the others. If they do, they take its place.
    Auto,
}

/// What a stream that is to be opened should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamKind {
    /// Without compression.
    Plain,
    /// With compression, as far as the server has any.
    Compressed,
}

/// Bytes taken of a piece for the sample: as much as zlib looks back.
const SAMPLE: usize = 32 * 1024;
/// Sampled bytes on which something is decided.
const ENOUGH: u64 = 64 * 1024;
/// How many bytes pass between two looks once there are enough.
const EVERY: u64 = 1024 * 1024;
/// A sample of this size forgets half of itself, so that it follows what passes.
const MEMORY: u64 = 256 * 1024;

/// How far the data that passes can be compressed.
#[derive(Debug, Default)]
pub(super) struct Sample {
    /// Bytes that have to pass before the next look.
    wait: u64,
    raw: u64,
    packed: u64,
}

impl Sample {
    /// How many of `length` bytes that pass are to be looked at.
    pub(super) fn handle_passing(&mut self, length: usize) -> usize {
        let passing = length as u64;
        if self.wait >= passing {
            self.wait -= passing;
            return 0;
        }
        self.wait = if self.raw < ENOUGH { 0 } else { EVERY };
        length.min(SAMPLE)
    }

    /// `raw` bytes that were looked at take `packed`.
    pub(super) fn handle_packed(&mut self, raw: u64, packed: u64) {
        if self.raw >= MEMORY {
            self.raw /= 2;
            self.packed /= 2;
        }
        self.raw += raw;
        self.packed += packed;
    }

    /// How many bytes one byte can stand for; nothing as long as too few were looked at.
    pub(super) fn ratio(&self) -> Option<f64> {
        (self.raw >= ENOUGH).then(|| float(self.raw) / float(self.packed.max(1)))
    }
}

/// The bytes that `data` takes when it is compressed quickly.
pub(super) fn packed_length(data: &[u8]) -> u64 {
    let mut encoder = DeflateEncoder::new(io::sink(), flate2::Compression::fast());
    match encoder.write_all(data).and_then(|()| encoder.try_finish()) {
        Ok(()) => encoder.total_out(),
        // A sink takes everything, so this is not reached; it would mean that compression does not pay.
        Err(_) => data.len() as u64,
    }
}

/// The least ratio that pays: less is not worth the processors of both sides.
const WORTHWHILE_RATIO: f64 = 1.3;
/// A stream that carries more bytes a second than this is as fast as the zlib of a server.
const FAST: f64 = 30e6;
/// How long a stream is watched before it is called slow.
const WATCH: Duration = Duration::from_millis(200);
/// Without enough bytes for a sample after so long, they are too few to matter.
const PATIENCE: Duration = Duration::from_secs(1);
/// A copy that is over sooner keeps its plain streams: about what opening another takes.
const WORTHWHILE: f64 = 2.0;

/// Decides what kind of streams are opened. Pure.
#[derive(Debug)]
pub(super) struct Choice {
    compression: Compression,
    /// When the first bytes had passed, and how many.
    begun: Option<(Instant, u64)>,
    /// Once it is known to pay it stays so: what cannot be compressed costs a stream that compresses little.
    pays: bool,
    has_told: bool,
}

impl Choice {
    pub(super) fn new(compression: Compression) -> Self {
        Self { compression, begun: None, pays: false, has_told: false }
    }

    /// The kind for streams opened now; nothing while it is not known yet. `ratio` is the sample's.
    pub(super) fn kind(&mut self, now: Instant, totals: Totals, open: usize, ratio: Option<f64>) -> Option<StreamKind> {
        match self.compression {
            Compression::Off => Some(StreamKind::Plain),
            Compression::On => Some(StreamKind::Compressed),
            Compression::Auto if self.pays => Some(StreamKind::Compressed),
            Compression::Auto => self.judge(now, totals, open, ratio),
        }
    }

    fn judge(&mut self, now: Instant, totals: Totals, open: usize, ratio: Option<f64>) -> Option<StreamKind> {
        if self.begun.is_none() && totals.bytes_done + totals.files_done > 0 {
            self.begun = Some((now, totals.bytes_done));
        }
        let watched = self.watched(now);
        let Some(ratio) = ratio else { return (watched >= PATIENCE).then_some(StreamKind::Plain) };
        if ratio < WORTHWHILE_RATIO {
            self.tell("no compression: the data does not get much smaller", ratio);
            return Some(StreamKind::Plain);
        }
        if watched < WATCH {
            return None;
        }
        self.pays = self.speed(now, totals) / float(open.max(1) as u64) < FAST;
        self.tell(if self.pays { "compression" } else { "no compression: the link is as fast as that" }, ratio);
        Some(if self.pays { StreamKind::Compressed } else { StreamKind::Plain })
    }

    /// Once, unless it changes its mind for the better.
    fn tell(&mut self, decision: &str, ratio: f64) {
        if !std::mem::replace(&mut self.has_told, true) || self.pays {
            tracing::info!(target: "ssmssh::detail", "{decision} (a sample of it packs to {:.0} %)", 100.0 / ratio);
        }
    }

    /// Whether enough is left for plain streams to be replaced by compressed ones.
    pub(super) fn is_replacing(&self, now: Instant, totals: Totals) -> bool {
        let left = totals.bytes.saturating_sub(totals.bytes_done);
        self.pays && float(left) / self.speed(now, totals).max(1.0) > WORTHWHILE
    }

    fn watched(&self, now: Instant) -> Duration {
        self.begun.map_or(Duration::ZERO, |(since, _)| now.saturating_duration_since(since))
    }

    /// Bytes a second since the first.
    fn speed(&self, now: Instant, totals: Totals) -> f64 {
        let moved = totals.bytes_done.saturating_sub(self.begun.map_or(0, |(_, before)| before));
        float(moved) / self.watched(now).as_secs_f64().max(f64::EPSILON)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a ratio needs no more than 52 bits")]
fn float(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    fn text(length: usize) -> Vec<u8> {
        b"GET /index.html 200\n".iter().copied().cycle().take(length).collect()
    }

    fn noise(length: usize) -> Vec<u8> {
        let mut state = 1u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state.to_be_bytes()[0]
        };
        std::iter::repeat_with(&mut next).take(length).collect()
    }

    fn pass(sample: &mut Sample, data: &[u8]) {
        for piece in data.chunks(64 * 1024) {
            let taken = &piece[..sample.handle_passing(piece.len())];
            if !taken.is_empty() {
                sample.handle_packed(taken.len() as u64, packed_length(taken));
            }
        }
    }

    #[test]
    fn text_and_noise_are_told_apart() {
        let (mut of_text, mut of_noise) = (Sample::default(), Sample::default());
        pass(&mut of_text, &text(32 * 1024));
        assert_eq!(of_text.ratio(), None, "too little");
        pass(&mut of_text, &text(256 * 1024));
        pass(&mut of_noise, &noise(256 * 1024));
        assert!(of_text.ratio().unwrap() > 10.0);
        assert!(of_noise.ratio().unwrap() < 1.01);
    }

    #[test]
    fn the_sample_follows_what_passes_and_looks_at_little_of_it() {
        let mut sample = Sample::default();
        pass(&mut sample, &noise(2 * 1024 * 1024));
        assert!(sample.ratio().unwrap() < 1.01);
        let looked = (0..64).filter(|_| sample.handle_passing(64 * 1024) > 0).count();
        assert!((3..=4).contains(&looked), "{looked} looks at 4 MiB");
        pass(&mut sample, &text(16 * 1024 * 1024));
        assert!(sample.ratio().unwrap() > WORTHWHILE_RATIO);
    }

    /// What is chosen `seconds` after the first byte of a copy of 64 MiB, at `speed` bytes a second.
    fn choose(seconds: f64, speed: f64, ratio: Option<f64>) -> (Option<StreamKind>, bool) {
        let mut choice = Choice::new(Compression::Auto);
        let mut totals = Totals { files: 1, bytes: 64 * MIB, bytes_done: 1, is_all_found: true, ..Totals::default() };
        let start = Instant::now();
        choice.kind(start, totals, 1, None);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few megabytes")]
        let moved = (seconds * speed) as u64;
        totals.bytes_done += moved;
        let now = start + Duration::from_secs_f64(seconds);
        (choice.kind(now, totals, 1, ratio), choice.is_replacing(now, totals))
    }

    #[test]
    fn text_on_a_slow_link_is_compressed_as_soon_as_the_link_is_known() {
        assert_eq!(choose(0.1, 700e3, Some(5.0)), (None, false));
        assert_eq!(choose(0.3, 700e3, Some(5.0)), (Some(StreamKind::Compressed), true));
    }

    #[test]
    fn noise_is_left_alone_at_once_and_so_is_a_fast_link() {
        assert_eq!(choose(0.0, 700e3, Some(1.01)), (Some(StreamKind::Plain), false));
        assert_eq!(choose(0.3, 60e6, Some(5.0)), (Some(StreamKind::Plain), false));
    }

    #[test]
    fn a_sample_that_does_not_come_is_not_waited_for_long() {
        assert_eq!(choose(0.5, 1000.0, None), (None, false));
        assert_eq!(choose(1.5, 1000.0, None), (Some(StreamKind::Plain), false));
    }

    #[test]
    fn a_copy_that_is_soon_over_keeps_its_plain_streams() {
        assert_eq!(choose(3.0, 20e6, Some(5.0)), (Some(StreamKind::Compressed), false));
    }

    #[test]
    fn what_was_asked_for_is_not_questioned() {
        for (compression, kind) in [(Compression::Off, StreamKind::Plain), (Compression::On, StreamKind::Compressed)] {
            let mut choice = Choice::new(compression);
            assert_eq!(choice.kind(Instant::now(), Totals::default(), 1, None), Some(kind));
            assert!(!choice.is_replacing(Instant::now(), Totals::default()));
        }
    }
}
