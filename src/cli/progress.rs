//! Two lines on the terminal about a copy that is under way: one for all of it, one for the file in hand.

use std::fmt;
use std::io::{self, IsTerminal, Write as _};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{report, terminal};
use crate::copy::{BytePath, Event, Progress, Summary, Totals};

/// How often the lines change at most: more is not seen.
const REDRAW: Duration = Duration::from_millis(50);
/// A file in hand that does not move for so long gives its line to one that does.
const IDLE: Duration = Duration::from_secs(1);
/// Rates are averages over about this time.
const MEMORY: f64 = 3.0;
/// The width of a terminal that does not tell it.
const COLUMNS: u16 = 80;
/// Back to the start of the line, and nothing on it or below.
const CLEAR: &str = "\r\x1b[J";

/// What is on the screen now. The cursor rests where it begins, so that it can be cleared whatever a change of the
/// window's size has made of it.
static SCREEN: Mutex<String> = Mutex::new(String::new());

/// Whether no connection carries anything at present.
static STALLED: AtomicBool = AtomicBool::new(false);

/// Whether no connection carries anything at present: a rate and the time left would be of the past.
pub(crate) fn set_stalled(is_stalled: bool) {
    STALLED.store(is_stalled, Ordering::Relaxed);
}

/// Copies whose lines are on the screen.
static COPIES: AtomicUsize = AtomicUsize::new(0);

/// Prints something above the lines, if there are any.
pub(crate) fn above<T>(print: impl FnOnce() -> T) -> T {
    let lines = lock(&SCREEN);
    if lines.is_empty() {
        return print();
    }
    put(CLEAR);
    let printed = print();
    put(&lines);
    printed
}

/// Puts lines in the place of those that are there; the last of them is on the screen without an end.
fn draw(lines: &[String]) {
    let mut screen = lock(&SCREEN);
    let up = lines.len().saturating_sub(1);
    let back = if up > 0 { format!("\r\x1b[{up}A") } else { "\r".to_owned() };
    *screen = format!("{CLEAR}{}{back}", lines.join("\r\n"));
    put(&screen);
}

/// Puts a line on the screen that is there until it is taken away; none where a copy has its lines there.
pub(crate) fn status(line: Option<&str>) {
    if COPIES.load(Ordering::Relaxed) > 0 {
        return;
    }
    match line {
        Some(line) => {
            let columns = usize::from(columns()).saturating_sub(1);
            draw(&[cut(line, columns).to_owned()]);
        }
        None => clear(),
    }
}

fn columns() -> u16 {
    match terminal::size(rustix::stdio::stderr()).ws_col {
        0 => COLUMNS,
        columns => columns,
    }
}

fn clear() {
    let mut screen = lock(&SCREEN);
    if !std::mem::take(&mut *screen).is_empty() {
        put(CLEAR);
    }
}

fn put(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The lines. They are drawn on stderr while that is a terminal; otherwise, or when not wanted, there are none.
///
/// Dropping it leaves what is drawn.
#[derive(Debug)]
pub(crate) struct ProgressLines {
    is_shown: bool,
    is_drawn: bool,
    started: Instant,
    shown: Mutex<Shown>,
}

#[derive(Debug, Default)]
struct Shown {
    totals: Totals,
    rate: Option<Rate>,
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

/// Bytes a second, of late rather than from the beginning.
#[derive(Debug, Clone, Copy)]
struct Rate {
    at: Instant,
    bytes: u64,
    per_second: f64,
}

impl ProgressLines {
    /// A terminal without escapes gets the last line only.
    pub(crate) fn new(is_wanted: bool, has_escapes: bool) -> Self {
        let is_shown = is_wanted && io::stderr().is_terminal();
        Self { is_shown, is_drawn: is_shown && has_escapes, started: Instant::now(), shown: Mutex::default() }
    }

    /// Takes in an event.
    pub(crate) fn show(&self, progress: Progress<'_>) {
        if !self.is_drawn {
            return;
        }
        let mut shown = lock(&self.shown);
        shown.handle(progress, Instant::now());
        if shown.drawn.is_none_or(|drawn| drawn.elapsed() >= REDRAW) {
            shown.draw(Instant::now());
        }
    }

    /// Draws what has changed by the passing of time alone, and in the size that the terminal has now.
    pub(crate) fn tick(&self) {
        if self.is_drawn {
            lock(&self.shown).draw(Instant::now());
        }
    }

    /// The copy is over: a line with what was copied and the time that it took stays.
    pub(crate) fn finish(&self, summary: &Summary) {
        clear();
        if self.is_shown && summary.files > 0 {
            report::verbatim(&result_line(summary, self.started.elapsed()));
        }
    }

    /// The copy ended early: the lines go.
    pub(crate) fn clear(&self) {
        if self.is_drawn {
            clear();
        }
    }

    /// Whether anything is drawn while the copy goes on.
    pub(crate) fn are_shown(&self) -> bool {
        self.is_drawn
    }
}

impl Rate {
    fn after(self, now: Instant, bytes: u64) -> Self {
        let seconds = now.saturating_duration_since(self.at).as_secs_f64();
        if seconds <= 0.0 {
            return self;
        }
        let moved = float(bytes.saturating_sub(self.bytes)) / seconds;
        let weight = if self.per_second > 0.0 { 1.0 - (-seconds / MEMORY).exp() } else { 1.0 };
        Self { at: now, bytes, per_second: self.per_second + weight * (moved - self.per_second) }
    }

    fn time_for(self, bytes: u64) -> Option<Duration> {
        (self.per_second >= 1.0).then(|| Duration::from_secs_f64((float(bytes) / self.per_second).min(1e9)))
    }
}

impl Shown {
    fn draw(&mut self, now: Instant) {
        if self.drawn.replace(now).is_none() {
            COPIES.fetch_add(1, Ordering::Relaxed);
        }
        // What an earlier run wrote says nothing about this one's speed.
        let written = self.totals.bytes_done.saturating_sub(self.totals.bytes_kept);
        let begun = Rate { at: now, bytes: written, per_second: 0.0 };
        let rate = *self.rate.insert(self.rate.map_or(begun, |rate| rate.after(now, written)));
        // A terminal may break the line behind its last column.
        let columns = usize::from(columns()).saturating_sub(1);
        let rate = Some(rate).filter(|_| !STALLED.load(Ordering::Relaxed));
        let whole = whole_line(&self.totals, rate, columns);
        let file = self.in_hand.as_ref().map(|file| file_line(file, columns)).unwrap_or_default();
        draw(&[cut(&whole, columns).to_owned(), cut(&file, columns).to_owned()]);
    }

    fn handle(&mut self, progress: Progress<'_>, now: Instant) {
        self.totals = progress.totals;
        match progress.event {
            Event::Started { path, size } => self.advance(path, size, 0, now),
            Event::Advanced { path, size, written } | Event::Resumed { path, size, kept: written } => {
                self.advance(path, size, written, now);
            }
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

/// As many of its parts as have room, the first in any case: what does not fit is left out, not cut in two.
fn whole_line(totals: &Totals, rate: Option<Rate>, columns: usize) -> String {
    let mut line = String::new();
    for part in whole(totals, rate) {
        let gap = if line.is_empty() { "" } else { "  " };
        if !line.is_empty() && line.len() + gap.len() + part.len() > columns {
            break;
        }
        line = line + gap + &part;
    }
    line
}

/// What is told about the whole copy, the most important first. Without a rate there is no connection.
fn whole(totals: &Totals, rate: Option<Rate>) -> impl Iterator<Item = String> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "no rate is negative or near 2^64")]
    let per_second = rate.map(|rate| format!("{}/s", Bytes(rate.per_second as u64)));
    let done = Bytes(totals.bytes_done);
    let is_total_known = totals.is_all_found && totals.bytes > 0;
    let of = if is_total_known { format!(" of {}", Bytes(totals.bytes)) } else { String::new() };
    let rest = totals.bytes.saturating_sub(totals.bytes_done);
    let left = rate.and_then(|rate| rate.time_for(rest)).filter(|_| totals.is_all_found && rest > 0);
    let left = left.map(|left| format!("{} left", clock(left)));
    let streams = (totals.streams > 1).then(|| format!("{} streams", totals.streams));
    let pace = per_second.or_else(|| Some("waiting for the connection".to_owned()));
    let parts = [Some(format!("{done}{of}")), pace, left, Some(file_count(totals)), streams];
    parts.into_iter().flatten()
}

fn file_count(totals: &Totals) -> String {
    match totals {
        Totals { files: 1, is_all_found: true, .. } | Totals { files_done: 1, is_all_found: false, .. } => {
            "1 file".to_owned()
        }
        Totals { files, files_done, is_all_found: true, .. } => format!("{files_done}/{files} files"),
        Totals { files_done, .. } => format!("{files_done} files"),
    }
}

/// Of a long path the end tells most.
fn file_line(file: &InHand, columns: usize) -> String {
    let part = match file.size.filter(|size| *size > 0) {
        Some(size) => format!("{:>3} %  ", u128::from(file.written.min(size)) * 100 / u128::from(size)),
        None => "       ".to_owned(),
    };
    let (path, room) = (file.path.to_string(), columns.saturating_sub(part.len()));
    if width(&path) <= room {
        return part + &path;
    }
    let mut shown = path.chars();
    while width(shown.as_str()) + 3 > room && shown.next().is_some() {}
    format!("{part}...{}", shown.as_str())
}

fn result_line(summary: &Summary, elapsed: Duration) -> String {
    let files = if summary.files == 1 { "1 file".to_owned() } else { format!("{} files", summary.files) };
    // Whole bytes a second, computed in milliseconds.
    let milliseconds = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
    let rate = Bytes(summary.bytes.saturating_mul(1000) / milliseconds);
    let resumed = match summary.bytes_kept {
        0 => String::new(),
        kept => format!("; {} were there from an interrupted copy", Bytes(kept)),
    };
    format!("{files}, {} in {:.1} s, {rate}/s{resumed}\n", Bytes(summary.bytes), elapsed.as_secs_f64())
}

/// As much of `text` as has room.
fn cut(text: &str, columns: usize) -> &str {
    let mut used = 0;
    let is_out = |(_, letter): &(usize, char)| {
        used += columns_of(*letter);
        used > columns
    };
    text.char_indices().find(is_out).map_or(text, |(end, _)| &text[..end])
}

fn width(text: &str) -> usize {
    text.chars().map(columns_of).sum()
}

/// No letter takes more than two columns, and those that take them are not ASCII.
fn columns_of(letter: char) -> usize {
    if letter.is_ascii() { 1 } else { 2 }
}

/// An amount of data, for people.
pub(crate) struct Bytes(pub(crate) u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
        let (mut amount, mut unit) = (float(self.0) / 1024.0, 0);
        while amount >= 1024.0 && unit + 1 < UNITS.len() {
            (amount, unit) = (amount / 1024.0, unit + 1);
        }
        if self.0 < 1024 { write!(f, "{} B", self.0) } else { write!(f, "{amount:.2} {}", UNITS[unit]) }
    }
}

/// Hours, minutes and seconds as a clock has them.
fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

#[expect(clippy::cast_precision_loss, reason = "a rate needs no more than 52 bits")]
fn float(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    #[test]
    fn the_last_line_tells_what_was_copied() {
        let mut summary = Summary::default();
        (summary.files, summary.bytes) = (1, 3 * MIB);
        assert_eq!(result_line(&summary, Duration::from_millis(1500)), "1 file, 3.00 MiB in 1.5 s, 2.00 MiB/s\n");
        summary.files = 12;
        assert_eq!(result_line(&summary, Duration::ZERO), "12 files, 3.00 MiB in 0.0 s, 2.93 GiB/s\n");
        summary.bytes_kept = 2 * MIB;
        let told = result_line(&summary, Duration::from_secs(3));
        assert_eq!(told, "12 files, 3.00 MiB in 3.0 s, 1.00 MiB/s; 2.00 MiB were there from an interrupted copy\n");
    }

    #[test]
    fn the_whole_copy_is_told_against_its_total_once_that_is_known() {
        let mut totals = Totals { files: 3, files_done: 1, bytes: 4 * MIB, bytes_done: MIB, ..Totals::default() };
        let rate = Rate { at: Instant::now(), bytes: MIB, per_second: 1_048_576.0 };
        assert_eq!(whole_line(&totals, Some(rate), 80), "1.00 MiB  1.00 MiB/s  1 file");
        (totals.is_all_found, totals.streams) = (true, 8);
        assert_eq!(
            whole_line(&totals, Some(rate), 80),
            "1.00 MiB of 4.00 MiB  1.00 MiB/s  0:03 left  1/3 files  8 streams"
        );
        assert_eq!(whole_line(&totals, Some(rate), 45), "1.00 MiB of 4.00 MiB  1.00 MiB/s  0:03 left");
        assert_eq!(whole_line(&totals, Some(rate), 42), "1.00 MiB of 4.00 MiB  1.00 MiB/s");
        assert_eq!(whole_line(&totals, Some(rate), 5), "1.00 MiB of 4.00 MiB");
        (totals.files, totals.streams) = (1, 1);
        let still = Rate { per_second: 0.0, ..rate };
        assert_eq!(whole_line(&totals, Some(still), 80), "1.00 MiB of 4.00 MiB  0 B/s  1 file");
        assert_eq!(whole_line(&totals, None, 80), "1.00 MiB of 4.00 MiB  waiting for the connection  1 file");
    }

    #[test]
    fn a_rate_follows_what_happens_and_falls_when_nothing_does() {
        let start = Instant::now();
        let mut rate = Rate { at: start, bytes: 0, per_second: 0.0 };
        for second in 1..=10 {
            rate = rate.after(start + Duration::from_secs(second), second * 1000);
        }
        assert!((999.0..1001.0).contains(&rate.per_second), "{rate:?}");
        let later = rate.after(start + Duration::from_secs(20), 10_000);
        assert!(later.per_second < 100.0, "{later:?}");
        assert_eq!(rate.time_for(60_000).map(|left| left.as_secs()), Some(60));
    }

    #[test]
    fn amounts_and_times_are_written_for_people() {
        let amounts = [0, 1023, 1024, 1536 * 1024, u64::MAX].map(|bytes| Bytes(bytes).to_string());
        assert_eq!(amounts, ["0 B", "1023 B", "1.00 KiB", "1.50 MiB", "16384.00 PiB"]);
        let times = [0, 59, 61, 3600 * 25 + 62].map(|seconds| clock(Duration::from_secs(seconds)));
        assert_eq!(times, ["0:00", "0:59", "1:01", "25:01:02"]);
    }

    #[test]
    fn lines_are_cut_where_the_terminal_ends() {
        assert_eq!(
            [cut("abcdef", 3), cut("ab", 3), cut("a\u{4e2d}b", 3), cut("a\u{4e2d}b", 2)],
            ["abc", "ab", "a\u{4e2d}", "a"]
        );
        let file = InHand { path: "a/long/way/to/file".into(), size: Some(4), written: 1, moved: Instant::now() };
        assert_eq!(file_line(&file, 80), " 25 %  a/long/way/to/file");
        assert_eq!(file_line(&file, 17), " 25 %  ...to/file");
        assert_eq!(file_line(&file, 0), " 25 %  ...");
    }

    fn shown(shown: &Shown) -> String {
        shown.in_hand.as_ref().map(|file| file_line(file, 80)).unwrap_or_default()
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
