//! What `--json` prints: one object a line. `docs/ssmcp-json.md` is the schema.

use std::io::{self, Write as _};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use data_encoding::BASE64;
use serde::Serialize;
use tokio::sync::oneshot;

use super::failures::cause;
use crate::cli::report;
use crate::copy::{BytePath, Event, Failure, Progress, Side, Skip, Totals};

/// How often the totals are told.
const INTERVAL: Duration = Duration::from_millis(250);
/// With so many lines not taken, the totals are left out.
const BACKLOG: usize = 64;

/// The lines, written by a thread: a reader that is slow holds up neither the copy nor its end by a signal.
#[derive(Debug)]
pub(super) struct Events {
    started: Instant,
    told: Mutex<Option<Instant>>,
    lines: mpsc::Sender<Vec<u8>>,
    backlog: Arc<AtomicUsize>,
    written: oneshot::Receiver<()>,
}

#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Line<'a> {
    Started {
        #[serde(flatten)]
        path: Path,
        size: Option<u64>,
    },
    Finished {
        #[serde(flatten)]
        path: Path,
    },
    Resumed {
        #[serde(flatten)]
        path: Path,
        size: Option<u64>,
        bytes_kept: u64,
    },
    Skipped {
        #[serde(flatten)]
        path: Path,
        rule: &'static str,
    },
    WouldCopy {
        #[serde(flatten)]
        path: Path,
        #[serde(flatten)]
        target: Target,
        size: Option<u64>,
    },
    Said {
        side: &'a str,
        text: String,
    },
    Failed {
        side: &'a str,
        #[serde(flatten)]
        path: Path,
        message: String,
    },
    Warned {
        side: &'a str,
        #[serde(flatten)]
        path: Path,
        files: u64,
        lacks: &'static str,
        message: String,
    },
    Progress {
        bytes: u64,
        bytes_total: u64,
        files: u64,
        files_total: u64,
        files_skipped: u64,
        is_all_found: bool,
        streams: usize,
        elapsed_ms: u64,
    },
    Summary {
        status: Status,
        exit_status: u8,
        files: u64,
        bytes: u64,
        bytes_kept: u64,
        failures: usize,
        can_resume: bool,
        elapsed_ms: u64,
        message: Option<&'a str>,
    },
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Status {
    Complete,
    Incomplete,
    Stopped,
    Failed,
}

/// What the last line tells beside the totals.
#[derive(Debug)]
pub(super) struct End {
    pub status: Status,
    pub exit_status: u8,
    pub failures: usize,
    pub can_resume: bool,
    pub message: Option<String>,
}

/// A path as text, and as its bytes where the text cannot hold them.
#[derive(Debug, Serialize)]
struct Path {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_base64: Option<String>,
}

/// The same of the name that a copy gets.
#[derive(Debug, Serialize)]
struct Target {
    target: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_base64: Option<String>,
}

impl Path {
    fn of(path: &BytePath) -> Self {
        let (path, path_base64) = text_and_bytes(path);
        Self { path, path_base64 }
    }
}

impl Target {
    fn of(path: &BytePath) -> Self {
        let (target, target_base64) = text_and_bytes(path);
        Self { target, target_base64 }
    }
}

fn text_and_bytes(path: &BytePath) -> (String, Option<String>) {
    let bytes = path.as_bytes();
    match str::from_utf8(bytes) {
        Ok(text) => (text.to_owned(), None),
        Err(_) => (String::from_utf8_lossy(bytes).into_owned(), Some(BASE64.encode(bytes))),
    }
}

impl Events {
    pub(super) fn to_stdout() -> Self {
        let (lines, queue) = mpsc::channel::<Vec<u8>>();
        let backlog = Arc::new(AtomicUsize::new(0));
        let taken = Arc::clone(&backlog);
        let (done, written) = oneshot::channel();
        thread::spawn(move || {
            for line in queue {
                taken.fetch_sub(1, Ordering::Relaxed);
                // A reader that went away misses nothing, and the copy goes on without it.
                if io::stdout().write_all(&line).and_then(|()| io::stdout().flush()).is_err() {
                    break;
                }
            }
            let _ = done.send(());
        });
        Self { started: Instant::now(), told: Mutex::new(None), lines, backlog, written }
    }

    pub(super) fn show(&self, progress: Progress<'_>) {
        match progress.event {
            Event::Started { path, size } => self.print(&Line::Started { path: Path::of(path), size }),
            Event::Finished { path } => self.print(&Line::Finished { path: Path::of(path) }),
            Event::Resumed { path, size, kept } => {
                self.print(&Line::Resumed { path: Path::of(path), size, bytes_kept: kept });
            }
            Event::Skipped { path, rule } => {
                self.print(&Line::Skipped { path: Path::of(path), rule: name_of(rule) });
            }
            Event::WouldCopy { path, target, size } => {
                self.print(&Line::WouldCopy { path: Path::of(path), target: Target::of(target), size });
            }
            Event::Said { side, text } => {
                let text = String::from_utf8_lossy(text.as_bytes()).into_owned();
                self.print(&Line::Said { side: side_name(side), text });
            }
            Event::Failed(failure) => self.print(&failed(failure)),
            Event::Warned(warning) => self.print(&Line::Warned {
                side: side_name(&warning.side),
                path: Path::of(&warning.path),
                files: warning.files,
                lacks: warning.lacks.name(),
                message: warning.to_string(),
            }),
            _ => {}
        }
        if self.is_time() {
            self.print(&self.progress(&progress.totals));
        }
    }

    /// Prints the summary and waits until everything is taken, or nobody takes it any more.
    ///
    /// Cancelling it leaves the thread with what is not taken yet.
    pub(super) async fn finish(self, totals: &Totals, end: &End) {
        self.print(&self.progress(totals));
        self.print(&Line::Summary {
            status: end.status,
            exit_status: end.exit_status,
            files: totals.files_done,
            bytes: totals.bytes_done,
            bytes_kept: totals.bytes_kept,
            failures: end.failures,
            can_resume: end.can_resume,
            elapsed_ms: self.elapsed(),
            message: end.message.as_deref(),
        });
        drop(self.lines);
        let _ = self.written.await;
    }

    fn progress(&self, totals: &Totals) -> Line<'static> {
        Line::Progress {
            bytes: totals.bytes_done,
            bytes_total: totals.bytes,
            files: totals.files_done,
            files_total: totals.files,
            files_skipped: totals.files_skipped,
            is_all_found: totals.is_all_found,
            streams: totals.streams,
            elapsed_ms: self.elapsed(),
        }
    }

    fn elapsed(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn is_time(&self) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let is_time = told.is_none_or(|at| at.elapsed() >= INTERVAL) && self.backlog.load(Ordering::Relaxed) < BACKLOG;
        if is_time {
            *told = Some(Instant::now());
        }
        is_time
    }

    fn print(&self, line: &Line<'_>) {
        let Ok(mut text) = serde_json::to_vec(line) else { return };
        text.push(b'\n');
        self.backlog.fetch_add(1, Ordering::Relaxed);
        let _ = self.lines.send(text);
    }
}

fn failed(failure: &Failure) -> Line<'_> {
    let (side, path) = (side_name(&failure.side), Path::of(&failure.path));
    Line::Failed { side, path, message: report::followed(failure.error.to_string(), cause(&failure.error)) }
}

fn side_name(side: &Side) -> &str {
    match side {
        Side::Local => "local",
        Side::Remote(name) => name,
    }
}

/// As the options that ask for it.
fn name_of(rule: Skip) -> &'static str {
    if rule == Skip::Same { "same" } else { "newer" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(line: &Line<'_>) -> String {
        serde_json::to_string(line).unwrap()
    }

    #[test]
    fn a_path_is_text_and_its_bytes_where_text_cannot_hold_them() {
        let started = |path: &[u8]| text(&Line::Started { path: Path::of(&BytePath::new(path)), size: Some(3) });
        assert_eq!(started(b"a\n\"b"), r#"{"event":"started","path":"a\n\"b","size":3}"#);
        let odd = "{\"event\":\"started\",\"path\":\"caf\u{fffd}\",\"path_base64\":\"Y2Fm6Q==\",\"size\":3}";
        assert_eq!(started(b"caf\xe9"), odd);
    }

    #[test]
    fn the_last_line_tells_how_it_ended() {
        let summary = Line::Summary {
            status: Status::Incomplete,
            exit_status: 1,
            files: 2,
            bytes: 30,
            bytes_kept: 20,
            failures: 1,
            can_resume: false,
            elapsed_ms: 12,
            message: None,
        };
        let expected = r#"{"event":"summary","status":"incomplete","exit_status":1,"files":2,"bytes":30,"bytes_kept":20,"failures":1,"can_resume":false,"elapsed_ms":12,"message":null}"#;
        assert_eq!(text(&summary), expected);
    }
}
