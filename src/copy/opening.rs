//! Opens more streams while a copy goes on: as many as `growth` wants, of the kind that `compression` chooses.

use std::error::Error;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};

use super::compression::{Choice, Compression, StreamKind};
use super::growth::Growth;
use super::lanes::Lanes;
use super::remote::OpenStream;
use super::{Streams, Totals};
use crate::ssh::sftp::Sftp;

/// Streams that are opened at the same time: OpenSSH's server begins to refuse the eleventh that is not logged in yet.
const OPENINGS: usize = 3;
/// How often the need for more streams is looked at.
const LOOK: Duration = Duration::from_millis(50);

type Outcome = Result<Sftp, Box<dyn Error + Send + Sync>>;

/// The streams on their way. Dropping it gives them up.
pub(super) struct Opening<'a> {
    lanes: &'a Lanes,
    open: &'a OpenStream,
    growth: Growth,
    choice: Choice,
    under_way: FuturesUnordered<BoxFuture<'static, (StreamKind, Outcome)>>,
    /// How many of those compress.
    compressed: usize,
}

impl<'a> Opening<'a> {
    pub(super) fn new(lanes: &'a Lanes, open: &'a OpenStream, streams: Streams, compression: Compression) -> Self {
        let (growth, choice) = (Growth::new(streams), Choice::new(compression));
        Self { lanes, open, growth, choice, under_way: FuturesUnordered::new(), compressed: 0 }
    }

    /// Never ends.
    pub(super) async fn go_on(mut self, totals: &(dyn Fn() -> Totals + Send + Sync)) {
        let mut look = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                _ = look.tick() => {}
                Some((kind, outcome)) = self.under_way.next() => self.handle_outcome(kind, outcome, totals()),
            }
            self.open_what_is_missing(Instant::now(), totals());
        }
    }

    fn handle_outcome(&mut self, kind: StreamKind, outcome: Outcome, totals: Totals) {
        let now = Instant::now();
        let is_compressed = kind == StreamKind::Compressed;
        self.compressed -= usize::from(is_compressed);
        match outcome {
            Ok(sftp) => {
                self.lanes.add(sftp, kind);
                tracing::debug!(?kind, "a further stream is open");
                if is_compressed && self.choice.is_replacing(now, totals) {
                    self.lanes.retire_plain();
                }
            }
            Err(error) => {
                tracing::info!(%error, "no further stream for now");
                self.growth.handle_refused(now);
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
        let Some(kind) = kind.filter(|_| !self.growth.is_held(now)) else { return };
        let missing = wanted.saturating_sub(open + adding) + (replaceable - replacing);
        for _ in 0..missing.min(OPENINGS.saturating_sub(self.under_way.len())) {
            self.compressed += usize::from(kind == StreamKind::Compressed);
            self.under_way.push((self.open)(kind).map(move |outcome| (kind, outcome)).boxed());
        }
    }
}
