//! What a command waits for: told on a terminal when it takes longer than a second, and taken away again.

use std::io::{self, IsTerminal};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::{progress, report};

/// A wait that is over sooner is no wait.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often the line is drawn: it counts seconds.
const TICK: Duration = Duration::from_millis(250);

/// What is waited for at present. Of several that wait at once the last to begin is told.
static WAITS: Mutex<Vec<Wait>> = Mutex::new(Vec::new());

#[derive(Debug)]
struct Wait {
    id: usize,
    what: String,
    since: Instant,
}

fn lock() -> MutexGuard<'static, Vec<Wait>> {
    WAITS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says what is waited for until it is dropped.
#[derive(Debug)]
pub(crate) struct Waiting {
    id: usize,
    line: Option<JoinHandle<()>>,
}

impl Waiting {
    /// Nobody is told where `is_told` is false, or stderr is no terminal.
    pub(crate) fn begin(what: &str, is_told: bool) -> Self {
        let mut waits = lock();
        let id = waits.last().map_or(0, |wait| wait.id + 1);
        waits.push(Wait { id, what: what.to_owned(), since: Instant::now() });
        let is_shown = is_told && io::stderr().is_terminal();
        Self { id, line: is_shown.then(|| tokio::spawn(keep_telling())) }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        lock().retain(|wait| wait.id != self.id);
        if let Some(line) = &self.line {
            line.abort();
            progress::status(None);
        }
    }
}

/// The wait goes on with something else.
pub(crate) fn goes_on(what: &str) {
    if let Some(wait) = lock().last_mut().filter(|wait| wait.what != what) {
        (wait.what, wait.since) = (what.to_owned(), Instant::now());
    }
}

/// What is waited for, if anything is.
pub(crate) fn current() -> Option<String> {
    lock().last().map(|wait| wait.what.clone())
}

async fn keep_telling() {
    loop {
        sleep(TICK).await;
        let waits = lock();
        match waits.last().filter(|wait| wait.since.elapsed() >= PATIENCE) {
            Some(wait) => progress::status(Some(&line(&wait.what, wait.since.elapsed()))),
            None => progress::status(None),
        }
    }
}

fn line(what: &str, waited: Duration) -> String {
    format!("waiting for {}… {} s", report::escape(what), waited.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_waited_for_is_the_last_that_began_and_goes_on_with_the_next() {
        let first = Waiting::begin("the agent", true);
        assert_eq!(current().as_deref(), Some("the agent"));
        goes_on("the API");
        assert_eq!(current().as_deref(), Some("the API"));
        let second = Waiting::begin("the node", false);
        drop(first);
        assert_eq!(current().as_deref(), Some("the node"));
        drop(second);
        assert_eq!(current(), None);
        goes_on("nobody");
        assert_eq!(current(), None);
    }

    #[test]
    fn the_line_counts_seconds_and_does_not_steer_the_terminal() {
        assert_eq!(line("a\u{1b}[2J", Duration::from_millis(3900)), "waiting for a\\u{1b}[2J… 3 s");
    }
}
