//! One line on the terminal about a copy that is under way.

use std::io::{self, IsTerminal};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::report;
use crate::copy::{Event, Progress, Totals};

/// While files are still being found, nobody knows how long the rest takes.
const FINDING: &str = "{wide_msg}  {bytes} in {prefix}  {bytes_per_sec}";
const KNOWN: &str = "{wide_msg}  {bytes} of {total_bytes} in {prefix}  {bytes_per_sec}  {eta} left";
const DONE: &str = "{wide_msg}  {bytes} in {prefix}  {bytes_per_sec}  {elapsed}";

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
            Event::Started { path } => self.bar.set_message(path.to_string()),
            Event::Failed(failure) => self.bar.suspend(|| report::note(&failure.to_string())),
            _ => {}
        }
    }

    /// The copy is over: the line stays, with the time that it took.
    pub(crate) fn finish(&self) {
        if self.bar.position() > 0 {
            self.bar.set_style(style(DONE));
            self.bar.abandon();
        } else {
            self.clear();
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

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_valid() {
        for template in [FINDING, KNOWN, DONE] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }

    #[test]
    fn files_are_counted_against_the_whole_once_it_is_known() {
        let totals = Totals { files: 3, files_done: 1, ..Totals::default() };
        assert_eq!(file_count(totals), "1 files");
        assert_eq!(file_count(Totals { is_all_found: true, ..totals }), "1/3 files");
        assert_eq!(file_count(Totals { files: 1, is_all_found: true, ..totals }), "1 file");
    }
}
