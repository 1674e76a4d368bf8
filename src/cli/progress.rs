//! Two lines on the terminal about a copy that is under way: one for all of it, one for the file in hand.

use std::io::{self, IsTerminal};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{BinaryBytes, HumanDuration, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::report;
use crate::copy::{BytePath, Event, Progress, Summary, Totals};

/// A line is cut where the terminal ends, so what matters most comes first.
const LINE: &str = "{wide_msg}";
/// How often the lines change at most: more is not seen.
const REDRAW: Duration = Duration::from_millis(50);
/// A file in hand that does not move for so long gives its line to one that does.
const IDLE: Duration = Duration::from_secs(1);

/// The lines that are on the screen, which other output has to leave alone.
static SCREEN: OnceLock<MultiProgress> = OnceLock::new();

/// Prints something above the lines, if there are any.
pub(crate) fn above<T>(print: impl FnOnce() -> T) -> T {
    match SCREEN.get() {
        Some(screen) => screen.suspend(print),
        None => print(),
    }
}

/// The lines. They are drawn on stderr while that is a terminal; otherwise, or when not wanted, there are none.
///
/// Dropping it leaves what is drawn.
#[derive(Debug)]
pub(crate) struct ProgressLines {
    whole: ProgressBar,
    file: ProgressBar,
    started: Instant,
    shown: Mutex<Shown>,
}

#[derive(Debug, Default)]
struct Shown {
    totals: Totals,
    in_hand: Option<InHand>,
    drawn: Option<Instant>,
}

/// One of the files that are being copied.
#[derive(Debug)]
struct InHand {
    path: BytePath,
    size: Option<u64>,
    written: u64,
    moved: Instant,
}

impl ProgressLines {
    pub(crate) fn new(is_wanted: bool) -> Self {
        let is_shown = is_wanted && io::stderr().is_terminal();
        let target = if is_shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let screen = MultiProgress::with_draw_target(target);
        let line = || {
            let bar = screen.add(ProgressBar::no_length());
            bar.set_style(ProgressStyle::with_template(LINE).unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        };
        let lines = Self { whole: line(), file: line(), started: Instant::now(), shown: Mutex::default() };
        if is_shown {
            let _ = SCREEN.set(screen);
        }
        lines
    }

    /// Takes in an event; failures stay on the screen as lines of their own.
    pub(crate) fn show(&self, progress: Progress<'_>) {
        if let Event::Failed(failure) = progress.event {
            report::note(&failure.to_string());
        }
        if self.whole.is_hidden() {
            return;
        }
        let mut shown = self.lock();
        shown.handle(progress, Instant::now());
        if shown.drawn.is_none_or(|drawn| drawn.elapsed() >= REDRAW) {
            self.draw(&mut shown);
        }
    }

    /// Draws what has changed by the passing of time alone, and in the size that the terminal has now.
    pub(crate) fn tick(&self) {
        if !self.whole.is_hidden() {
            self.draw(&mut self.lock());
        }
    }

    /// The copy is over: a line with what was copied and the time that it took stays.
    pub(crate) fn finish(&self, summary: &Summary) {
        self.clear();
        if !self.whole.is_hidden() && summary.files > 0 {
            report::verbatim(&result_line(summary, self.started.elapsed()));
        }
    }

    /// The copy ended early: the lines go.
    pub(crate) fn clear(&self) {
        self.file.finish_and_clear();
        self.whole.finish_and_clear();
    }

    fn draw(&self, shown: &mut Shown) {
        shown.drawn = Some(Instant::now());
        let totals = &shown.totals;
        if totals.is_all_found {
            self.whole.set_length(totals.bytes);
        }
        self.whole.set_position(totals.bytes_done);
        self.whole.set_message(whole_line(totals, self.whole.per_sec(), self.whole.eta()));
        self.file.set_message(shown.in_hand.as_ref().map(file_line).unwrap_or_default());
        self.whole.tick();
        self.file.tick();
    }

    fn lock(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shown {
    fn handle(&mut self, progress: Progress<'_>, now: Instant) {
        self.totals = progress.totals;
        match progress.event {
            Event::Started { path, size } => self.advance(path, size, 0, now),
            Event::Advanced { path, size, written } => self.advance(path, size, written, now),
            Event::Finished { path } if self.is_in_hand(path) => self.in_hand = None,
            _ => {}
        }
    }

    fn is_in_hand(&self, path: &BytePath) -> bool {
        self.in_hand.as_ref().is_some_and(|file| file.path == *path)
    }

    fn advance(&mut self, path: &BytePath, size: Option<u64>, written: u64, now: Instant) {
        match &mut self.in_hand {
            Some(file) if file.path == *path => (file.written, file.moved) = (written, now),
            Some(file) if now.saturating_duration_since(file.moved) < IDLE => {}
            _ => self.in_hand = Some(InHand { path: path.clone(), size, written, moved: now }),
        }
    }
}

fn whole_line(totals: &Totals, per_second: f64, left: Duration) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "no rate is negative or near 2^64")]
    let rate = BinaryBytes(per_second as u64);
    let done = BinaryBytes(totals.bytes_done);
    let is_total_known = totals.is_all_found && totals.bytes > 0;
    let of = if is_total_known { format!(" of {}", BinaryBytes(totals.bytes)) } else { String::new() };
    let is_end_known = totals.is_all_found && totals.bytes_done < totals.bytes && per_second > 0.0;
    let left = if is_end_known { format!("  {} left", HumanDuration(left)) } else { String::new() };
    let streams = if totals.streams > 1 { format!("  {} streams", totals.streams) } else { String::new() };
    format!("{done}{of}  {rate}/s{left}  {}{streams}", file_count(totals))
}

fn file_count(totals: &Totals) -> String {
    match totals {
        Totals { files: 1, is_all_found: true, .. } => "1 file".to_owned(),
        Totals { files, files_done, is_all_found: true, .. } => format!("{files_done}/{files} files"),
        Totals { files_done, .. } => format!("{files_done} files"),
    }
}

fn file_line(file: &InHand) -> String {
    match file.size.filter(|size| *size > 0) {
        Some(size) => {
            format!("{:>3} %  {}", file.written.saturating_mul(100).min(size.saturating_mul(100)) / size, file.path)
        }
        None => format!("       {}", file.path),
    }
}

fn result_line(summary: &Summary, elapsed: Duration) -> String {
    let files = if summary.files == 1 { "1 file".to_owned() } else { format!("{} files", summary.files) };
    // Whole bytes a second, computed in milliseconds.
    let milliseconds = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
    let rate = BinaryBytes(summary.bytes.saturating_mul(1000) / milliseconds);
    format!("{files}, {} in {:.1} s, {rate}/s\n", BinaryBytes(summary.bytes), elapsed.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    #[test]
    fn the_template_is_valid() {
        assert!(ProgressStyle::with_template(LINE).is_ok());
    }

    #[test]
    fn the_last_line_tells_what_was_copied() {
        let mut summary = Summary::default();
        (summary.files, summary.bytes) = (1, 3 * MIB);
        assert_eq!(result_line(&summary, Duration::from_millis(1500)), "1 file, 3.00 MiB in 1.5 s, 2.00 MiB/s\n");
        summary.files = 12;
        assert_eq!(result_line(&summary, Duration::ZERO), "12 files, 3.00 MiB in 0.0 s, 2.93 GiB/s\n");
    }

    #[test]
    fn the_whole_copy_is_told_against_its_total_once_that_is_known() {
        let mut totals = Totals { files: 3, files_done: 1, bytes: 4 * MIB, bytes_done: MIB, ..Totals::default() };
        let line = |totals: &Totals| whole_line(totals, 1_048_576.0, Duration::from_secs(3));
        assert_eq!(line(&totals), "1.00 MiB  1.00 MiB/s  1 files");
        (totals.is_all_found, totals.streams) = (true, 8);
        assert_eq!(line(&totals), "1.00 MiB of 4.00 MiB  1.00 MiB/s  3 seconds left  1/3 files  8 streams");
        (totals.files, totals.streams) = (1, 1);
        assert_eq!(line(&totals), "1.00 MiB of 4.00 MiB  1.00 MiB/s  3 seconds left  1 file");
    }

    fn shown(shown: &Shown) -> String {
        shown.in_hand.as_ref().map(file_line).unwrap_or_default()
    }

    #[test]
    fn a_file_keeps_its_line_until_it_is_done_or_stands_still() {
        let (mut lines, start) = (Shown::default(), Instant::now());
        let (one, two) = (BytePath::from("one"), BytePath::from("two\n"));
        lines.advance(&one, Some(200), 50, start);
        lines.advance(&two, None, 7, start + IDLE / 2);
        assert_eq!(shown(&lines), " 25 %  one");
        lines.advance(&two, None, 8, start + IDLE * 2);
        assert_eq!(shown(&lines), "       two\\n");
        lines.handle(Progress { event: Event::Finished { path: &two }, totals: Totals::default() }, start);
        assert_eq!(shown(&lines), "");
    }
}
