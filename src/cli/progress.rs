//! One line on the terminal about a copy that is under way.

use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{BinaryBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::report;
use crate::copy::{Event, Progress, Summary, Totals};

/// While files are still being found, nobody knows how long the rest takes.
const FINDING: &str = "{wide_msg}  {bytes} in {prefix}  {bytes_per_sec}";
const KNOWN: &str = "{wide_msg}  {bytes} of {total_bytes} in {prefix}  {bytes_per_sec}  {eta} left";

/// The line. It is drawn on stderr while that is a terminal; otherwise, or when quiet, there is none.
///
/// Dropping it leaves what is drawn.
#[derive(Debug)]
pub(crate) struct ProgressLine {
    bar: ProgressBar,
}

impl ProgressLine {
    pub(crate) fn new(quiet: bool) -> Self {
        let is_shown = !quiet && io::stderr().is_terminal();
        let target = if is_shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(None, target);
        bar.set_style(style(FINDING));
        Self { bar }
    }

    /// Shows an event; failures stay on the screen as lines of their own.
    pub(crate) fn show(&self, progress: Progress<'_>) {
        self.show_totals(progress.totals);
        match progress.event {
            Event::Started { path, .. } => self.bar.set_message(path.to_string()),
            Event::Failed(failure) => self.bar.suspend(|| report::note(&failure.to_string())),
            _ => {}
        }
    }

    /// The copy is over: a line with what was copied and the time that it took stays.
    pub(crate) fn finish(&self, summary: &Summary) {
        let elapsed = self.bar.elapsed();
        self.clear();
        if !self.bar.is_hidden() && summary.files > 0 {
            report::verbatim(&result_line(summary, elapsed));
        }
    }

    /// The copy ended early: the line goes.
    pub(crate) fn clear(&self) {
        self.bar.finish_and_clear();
    }

    fn show_totals(&self, totals: Totals) {
        if totals.is_all_found && self.bar.length().is_none() {
            self.bar.set_style(style(KNOWN));
        }
        if totals.is_all_found && self.bar.length() != Some(totals.bytes) {
            self.bar.set_length(totals.bytes);
        }
        self.bar.set_prefix(file_count(totals));
        self.bar.set_position(totals.bytes_done);
    }
}

fn file_count(totals: Totals) -> String {
    match totals {
        Totals { files: 1, is_all_found: true, .. } => "1 file".to_owned(),
        Totals { files, files_done, is_all_found: true, .. } => format!("{files_done}/{files} files"),
        Totals { files_done, .. } => format!("{files_done} files"),
    }
}

fn result_line(summary: &Summary, elapsed: Duration) -> String {
    let files = if summary.files == 1 { "1 file".to_owned() } else { format!("{} files", summary.files) };
    // Whole bytes a second, computed in milliseconds.
    let milliseconds = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
    let rate = BinaryBytes(summary.bytes.saturating_mul(1000) / milliseconds);
    format!("{files}, {} in {:.1} s, {rate}/s\n", BinaryBytes(summary.bytes), elapsed.as_secs_f64())
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_valid() {
        for template in [FINDING, KNOWN] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }

    #[test]
    fn the_last_line_tells_what_was_copied() {
        let mut summary = Summary::default();
        (summary.files, summary.bytes) = (1, 3 * 1024 * 1024);
        assert_eq!(result_line(&summary, Duration::from_millis(1500)), "1 file, 3.00 MiB in 1.5 s, 2.00 MiB/s\n");
        summary.files = 12;
        assert_eq!(result_line(&summary, Duration::ZERO), "12 files, 3.00 MiB in 0.0 s, 2.93 GiB/s\n");
    }

    #[test]
    fn files_are_counted_against_the_whole_once_it_is_known() {
        let totals = Totals { files: 3, files_done: 1, ..Totals::default() };
        assert_eq!(file_count(totals), "1 files");
        assert_eq!(file_count(Totals { is_all_found: true, ..totals }), "1/3 files");
        assert_eq!(file_count(Totals { files: 1, is_all_found: true, ..totals }), "1 file");
    }
}
