//! What is told about a copy while it goes on: lines on the terminal, JSON lines, advice.

use std::convert::Infallible;
use std::future::pending;
use std::io::{self, IsTerminal, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::failures::Failures;
use super::json::{End, Events};
use super::pace::PaceWatch;
use super::settings::SsmcpSettings;
use crate::cli::options::LogLevel;
use crate::cli::progress::{Bytes, ProgressLines};
use crate::cli::report;
use crate::cli::signals::Stops;
use crate::cli::target::Operand;
use crate::copy::{Compression, Event, Progress, Skip, Summary, Totals};

/// How often the lines are drawn when nothing happens: rates fall, times grow, windows change their size.
const TICK: Duration = Duration::from_millis(250);

#[derive(Debug)]
pub(super) struct Show<'a> {
    settings: &'a SsmcpSettings,
    lines: ProgressLines,
    failures: Failures,
    events: Option<Events>,
    pace: Option<Mutex<PaceWatch>>,
    totals: Mutex<Totals>,
}

impl<'a> Show<'a> {
    pub(super) fn new(settings: &'a SsmcpSettings) -> Self {
        let is_data_on_screen = settings.target == Operand::Pipe && io::stdout().is_terminal();
        let lines =
            !settings.connection.is_quiet() && !settings.json && !is_data_on_screen && !settings.selection.is_dry_run();
        Self {
            settings,
            lines: ProgressLines::new(lines, settings.has_escapes),
            failures: Failures::new(!settings.connection.is_quiet()),
            events: settings.json.then(Events::to_stdout),
            pace: is_advice_wanted(settings).then(|| Mutex::new(pace_watch(settings))),
            totals: Mutex::default(),
        }
    }

    pub(super) fn show(&self, progress: Progress<'_>) {
        *self.totals.lock().unwrap_or_else(PoisonError::into_inner) = progress.totals;
        if matches!(progress.event, Event::Failed(failure) if self.settings.is_reader_gone(failure)) {
            return;
        }
        if let Event::WouldCopy { path, target, .. } = progress.event
            && !self.settings.json
        {
            // Whoever closed standard output does not want to know.
            let _ = writeln!(io::stdout(), "{path} -> {target}");
        }
        match progress.event {
            Event::Failed(failure) => self.failures.show(failure),
            Event::Warned(warning) => report::note(&format!("warning: {warning}")),
            Event::Said { side, text } => report::note(&format!("{side}: {text}")),
            event if self.settings.connection.log_level >= LogLevel::Stages => tell_of_file(&event),
            _ => {}
        }
        self.lines.show(progress);
        if let Some(events) = &self.events {
            events.show(progress);
        }
    }

    pub(super) fn totals(&self) -> Totals {
        *self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what the passing of time asks for. Cancelling it does no harm.
    pub(super) async fn keep_up_to_date(&self) -> Infallible {
        let mut interval = tokio::time::interval(TICK);
        let mut stops = self.lines.are_shown().then(Stops::catch);
        loop {
            let stopped = async {
                match &mut stops {
                    Some(stops) => stops.recv().await,
                    None => pending().await,
                }
            };
            tokio::select! {
                _ = interval.tick() => {}
                () = stopped => {
                    // Half a line would stay before the shell's prompt.
                    self.lines.clear();
                    Stops::stop();
                }
            }
            self.lines.tick();
            let advice = self.pace.as_ref().and_then(|pace| {
                let mut pace = pace.lock().unwrap_or_else(PoisonError::into_inner);
                pace.handle(Instant::now(), &self.totals())
            });
            if let Some(advice) = advice {
                report::note(&advice);
            }
        }
    }

    /// The copy is over; without a summary it ended early.
    pub(super) fn close(&self, summary: Option<&Summary>) {
        match summary {
            Some(summary) => self.lines.finish(summary),
            None => self.lines.clear(),
        }
    }

    /// The run is over. Cancelling it may leave the last lines unprinted.
    pub(super) async fn end(mut self, end: End) {
        if let Some(events) = self.events.take() {
            events.finish(&self.totals(), &end).await;
        }
    }
}

/// Why a file is not copied from its beginning to its end.
fn tell_of_file(event: &Event<'_>) {
    match event {
        Event::Resumed { path, size, kept } if *size == Some(*kept) => {
            report::note(&format!("{path}: an earlier run has finished it"));
        }
        Event::Resumed { path, size, kept } => {
            let of = size.map(|size| format!(" of {}", Bytes(size))).unwrap_or_default();
            report::note(&format!("{path}: goes on, {}{of} were there", Bytes(*kept)));
        }
        Event::Skipped { path, rule } => {
            let reason = if *rule == Skip::Same { "the same size and time" } else { "it as new or newer" };
            report::note(&format!("{path}: skipped, the target has {reason}"));
        }
        _ => {}
    }
}

fn pace_watch(settings: &SsmcpSettings) -> PaceWatch {
    PaceWatch::new(settings.streams, settings.compression == Compression::Off)
}

/// Advice is for people who look on, or ask; not where the pace is one's own wish, or no node sends.
fn is_advice_wanted(settings: &SsmcpSettings) -> bool {
    let level = settings.connection.log_level;
    let is_heard = level >= LogLevel::Stages || (level == LogLevel::Info && io::stderr().is_terminal());
    is_heard && settings.rate_limit.is_none() && settings.sources.iter().any(Operand::is_remote)
}
