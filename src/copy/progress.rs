//! What a copy tells while it goes on.

use std::sync::{Mutex, PoisonError};

use super::plan::Found;
use super::{BytePath, Failure, Side, Skip, Warning};

/// Something happened.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Progress<'a> {
    /// What happened.
    pub event: Event<'a>,
    /// How far the whole copy is.
    pub totals: Totals,
}

/// What happened.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Event<'a> {
    /// More files to copy were found.
    Found,
    /// A file is being copied. Several may be at once.
    Started {
        /// The file, on the side it comes from.
        path: &'a BytePath,
        /// Its size in bytes, where that is known.
        size: Option<u64>,
    },
    /// Bytes of a file were written, or are lost and will be written again.
    Advanced {
        /// The file, on the side it comes from.
        path: &'a BytePath,
        /// Its size in bytes, where that is known.
        size: Option<u64>,
        /// How many of its bytes are written now, those included that are left out because they are a hole.
        written: u64,
    },
    /// A file has its name and all its bytes.
    Finished {
        /// The file, on the side it comes from.
        path: &'a BytePath,
    },
    /// A file is not begun anew: an earlier run of the same copy has written some or all of it.
    Resumed {
        /// The file, on the side it comes from.
        path: &'a BytePath,
        /// Its size in bytes, where that is known.
        size: Option<u64>,
        /// How many of its bytes are kept.
        kept: u64,
    },
    /// A file was left as it is.
    Skipped {
        /// The file, on the side it comes from.
        path: &'a BytePath,
        /// The rule that says so.
        rule: Skip,
    },
    /// A dry run has found a file that would be copied.
    WouldCopy {
        /// The file, on the side it comes from.
        path: &'a BytePath,
        /// The name that it would get.
        target: &'a BytePath,
        /// Its size in bytes, where that is known. A link has none.
        size: Option<u64>,
    },
    /// Something could not be copied.
    Failed(&'a Failure),
    /// Files that are there lack something; told at the end, once for each kind.
    Warned(&'a Warning),
    /// A side's program printed a line beside what it does: to its stderr, over the SCP protocol.
    Said {
        /// The side.
        side: &'a Side,
        /// The line. Text from the network; its `Display` escapes what could steer a terminal.
        text: &'a BytePath,
    },
}

/// How far a copy is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Totals {
    /// Files found so far, without those that were skipped.
    pub files: u64,
    /// Files copied.
    pub files_done: u64,
    /// Files that were left as they are.
    pub files_skipped: u64,
    /// Bytes in the files found so far, those that failed or were skipped, and holes, not counted.
    pub bytes: u64,
    /// Bytes written, those included that an earlier run of the same copy wrote.
    pub bytes_done: u64,
    /// Bytes that an earlier run of the same copy wrote.
    pub bytes_kept: u64,
    /// Streams that carry the bytes now.
    pub streams: usize,
    /// Whether everything is found, so that `files` and `bytes` are the whole copy.
    pub is_all_found: bool,
}

/// Keeps the totals and reports events.
pub(super) struct Meter<'a> {
    totals: Mutex<Totals>,
    report: &'a (dyn Fn(Progress<'_>) + Send + Sync),
}

impl<'a> Meter<'a> {
    pub(super) fn new(report: &'a (dyn Fn(Progress<'_>) + Send + Sync)) -> Self {
        Self { totals: Mutex::default(), report }
    }

    /// Changes the totals, then reports.
    pub(super) fn tell(&self, event: Event<'_>, change: impl FnOnce(&mut Totals)) {
        let totals = {
            let mut totals = self.totals.lock().unwrap_or_else(PoisonError::into_inner);
            change(&mut totals);
            *totals
        };
        (self.report)(Progress { event, totals });
    }

    pub(super) fn totals(&self) -> Totals {
        *self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A file that was found is left as it is.
    pub(super) fn skipped(&self, path: &BytePath, size: u64, rule: Skip) {
        self.tell(Event::Skipped { path, rule }, |totals| {
            totals.files = totals.files.saturating_sub(1);
            totals.bytes = totals.bytes.saturating_sub(size);
            totals.files_skipped += 1;
        });
    }

    /// Takes over what the plan found since `before`.
    pub(super) fn found(&self, before: Found, now: Found) {
        if before != now {
            self.tell(Event::Found, |totals| {
                totals.files += now.files - before.files;
                totals.bytes = totals.bytes.saturating_add(now.bytes.saturating_sub(before.bytes));
                totals.is_all_found = now.is_all;
            });
        }
    }
}

/// One file's share of the totals. Dropped before the file is done, it takes the rest of its share back.
pub(super) struct FileMeter<'a, 'b> {
    meter: &'a Meter<'b>,
    path: &'a BytePath,
    size: Option<u64>,
    written: u64,
    kept: u64,
    /// Bytes of holes, which are neither read nor written.
    holes: u64,
}

impl<'a, 'b> FileMeter<'a, 'b> {
    pub(super) fn new(meter: &'a Meter<'b>, path: &'a BytePath, size: Option<u64>) -> Self {
        Self { meter, path, size, written: 0, kept: 0, holes: 0 }
    }

    /// Bytes were written, by the way of so many streams.
    pub(super) fn wrote(&mut self, bytes: u32, streams: usize) {
        self.written += u64::from(bytes);
        self.meter.tell(self.event(), |totals| {
            totals.bytes_done += u64::from(bytes);
            totals.streams = streams;
        });
    }

    /// So much was written before.
    pub(super) fn kept(&mut self, bytes: u64) {
        if bytes > 0 {
            self.written += bytes;
            self.kept += bytes;
            let event = Event::Resumed { path: self.path, size: self.size, kept: bytes };
            self.meter.tell(event, |totals| {
                totals.bytes_done += bytes;
                totals.bytes_kept += bytes;
            });
        }
    }

    /// So much is a hole.
    pub(super) fn left_out(&mut self, bytes: u64) {
        if bytes > 0 {
            self.holes += bytes;
            self.meter.tell(self.event(), |totals| totals.bytes = totals.bytes.saturating_sub(bytes));
        }
    }

    /// What was written is lost, or will be found again.
    pub(super) fn start_over(&mut self) {
        let (lost, kept) = (std::mem::take(&mut self.written), std::mem::take(&mut self.kept));
        let holes = std::mem::take(&mut self.holes);
        if lost > 0 || holes > 0 {
            self.meter.tell(self.event(), |totals| {
                totals.bytes_done -= lost;
                totals.bytes_kept -= kept;
                totals.bytes = totals.bytes.saturating_add(holes);
            });
        }
    }

    fn event(&self) -> Event<'a> {
        Event::Advanced { path: self.path, size: self.size, written: self.written + self.holes }
    }
}

impl Drop for FileMeter<'_, '_> {
    fn drop(&mut self) {
        let mut totals = self.meter.totals.lock().unwrap_or_else(PoisonError::into_inner);
        totals.bytes = (totals.bytes + self.written + self.holes).saturating_sub(self.size.unwrap_or(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hole_leaves_the_total_when_it_is_found_and_comes_back_when_the_file_starts_over() {
        let written = Mutex::new(Vec::new());
        let report = |progress: Progress<'_>| {
            if let Event::Advanced { written: now, .. } = progress.event {
                written.lock().unwrap().push((now, progress.totals.bytes));
            }
        };
        let (meter, path) = (Meter::new(&report), BytePath::from("sparse"));
        meter.tell(Event::Found, |totals| totals.bytes = 100);
        let mut file = FileMeter::new(&meter, &path, Some(100));
        file.left_out(80);
        file.start_over();
        file.left_out(80);
        file.wrote(20, 1);
        drop(file);
        assert_eq!(*written.lock().unwrap(), [(80, 20), (0, 100), (80, 20), (100, 20)]);
        assert_eq!((meter.totals().bytes, meter.totals().bytes_done), (20, 20));
    }
}
