//! Opens more streams while a copy goes on: as many as `growth` wants, of the kind that `compression` chooses, and others
//! in place of those that are lost.

use std::error::Error;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};

use super::compression::{Choice, Compression, StreamKind};
use super::growth::Growth;
use super::lanes::Lanes;
use crate::copy::{Streams, Totals};
use crate::ssh::sftp::Sftp;

/// Opens another stream to the same machine, as the same user, of the kind that is asked for.
pub type OpenStream =
    dyn Fn(StreamKind) -> BoxFuture<'static, Result<Sftp, Box<dyn Error + Send + Sync>>> + Send + Sync;

/// Streams that are opened at the same time, until one is refused: OpenSSH's server begins to refuse the eleventh that is
/// not logged in yet, unless it is told otherwise (`MaxStartups`).
const OPENINGS: usize = 3;
/// How often the need for more streams is looked at.
const LOOK: Duration = Duration::from_millis(50);

type Outcome = Result<Sftp, Box<dyn Error + Send + Sync>>;

/// What was asked for, and when.
struct Opened {
    kind: StreamKind,
    asked: Instant,
}

/// The streams on their way. Dropping it gives them up.
pub(super) struct Opening<'a> {
    lanes: &'a Lanes,
    open: &'a OpenStream,
    growth: Growth,
    choice: Choice,
    under_way: FuturesUnordered<BoxFuture<'static, (Opened, Outcome)>>,
    /// How many of those compress.
    compressed: usize,
    /// How many there may be.
    at_once: usize,
    /// All streams are lost.
    is_cut_off: bool,
}

impl<'a> Opening<'a> {
    pub(super) fn new(lanes: &'a Lanes, open: &'a OpenStream, streams: Streams, compression: Compression) -> Self {
        let (growth, choice) = (Growth::new(streams), Choice::new(compression));
        let (under_way, compressed) = (FuturesUnordered::new(), 0);
        Self { lanes, open, growth, choice, under_way, compressed, at_once: OPENINGS, is_cut_off: false }
    }

    /// Never ends.
    pub(super) async fn go_on(mut self, totals: &(dyn Fn() -> Totals + Send + Sync)) {
        let mut look = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                _ = look.tick() => {}
                Some((opened, outcome)) = self.under_way.next() => self.handle_outcome(&opened, outcome, totals()),
            }
            let (now, totals) = (now(), totals());
            self.look_for_losses(now, totals);
            self.open_what_is_missing(now, totals);
        }
    }

    fn look_for_losses(&mut self, now: Instant, totals: Totals) {
        let was_cut_off = std::mem::replace(&mut self.is_cut_off, self.lanes.open() == 0);
        if self.is_cut_off && !was_cut_off {
            tracing::info!(target: "ssmssh::detail", "all streams are lost ({}): opening another", self.lanes.cause());
            self.growth.handle_cut_off(now, totals);
        }
        // As long as there are streams, it is their end that decides whether others are tried.
        let has_given_up = self.is_cut_off && self.growth.has_given_up() && self.under_way.is_empty();
        self.lanes.set_growing(!has_given_up);
    }

    fn handle_outcome(&mut self, &Opened { kind, asked }: &Opened, outcome: Outcome, totals: Totals) {
        let now = now();
        let is_compressed = kind == StreamKind::Compressed;
        self.compressed -= usize::from(is_compressed);
        match outcome {
            Ok(sftp) => {
                self.growth.handle_opened(now - asked);
                self.lanes.add(sftp, kind);
                if is_compressed && self.choice.is_replacing(now, totals) {
                    self.lanes.retire_plain();
                }
                let (open, plain) = (self.lanes.open(), self.lanes.plain());
                tracing::info!(target: "ssmssh::detail", "streams in use: {open}, {} with compression", open - plain);
            }
            Err(error) => {
                tracing::info!(target: "ssmssh::detail", "no further stream for now: {error}");
                self.growth.handle_refused(now);
                self.at_once = 1;
            }
        }
    }

    fn open_what_is_missing(&mut self, now: Instant, totals: Totals) {
        let (open, plain) = (self.lanes.open(), self.lanes.plain());
        let kind = self.choice.kind(now, totals, open, self.lanes.ratio());
        let replaceable = if self.choice.is_replacing(now, totals) { plain } else { 0 };
        let replacing = replaceable.min(self.compressed);
        let adding = self.under_way.len() - replacing;
        let wanted = self.growth.wanted(now, totals, open, adding);
        // Whatever the data is like, something has to carry it.
        let kind = kind.or((open == 0).then_some(StreamKind::Plain));
        let Some(kind) = kind.filter(|_| !self.growth.is_held(now)) else { return };
        let missing = wanted.saturating_sub(open + adding) + (replaceable - replacing);
        for _ in 0..missing.min(self.at_once.saturating_sub(self.under_way.len())) {
            self.compressed += usize::from(kind == StreamKind::Compressed);
            let opened = Opened { kind, asked: now };
            self.under_way.push((self.open)(kind).map(move |outcome| (opened, outcome)).boxed());
        }
    }
}

/// On the clock of the timers.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.lanes.set_growing(false);
    }
}
