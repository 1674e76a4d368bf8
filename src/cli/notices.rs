//! What a user is told about connections that are lost and come back, and about a node that does not answer.

use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::sleep;

use super::options::LogLevel;
use super::{progress, report, terminal};
use crate::stream::{ConnectionState, ServiceError, StreamError};

/// An outage that is over sooner is not worth a line on somebody's screen, or in a log.
const PATIENCE: Duration = Duration::from_secs(2);

/// Most reasons that are told of one outage: they may take turns for as long as it lasts.
const MAX_OBSTACLES: usize = 4;

/// How long an outage may last before it is told; `None` where nobody wants to hear of it.
fn patience(level: LogLevel) -> Option<Duration> {
    match level {
        LogLevel::Quiet => None,
        LogLevel::Info => Some(PATIENCE),
        LogLevel::Stages | LogLevel::Debug => Some(Duration::ZERO),
    }
}

/// The connections of one command. However many of them are lost at once, that is one outage: its beginning is told, its
/// end, and what only the user can do about it.
#[derive(Debug, Clone)]
pub(crate) struct Notices {
    level: LogLevel,
    all: Arc<Mutex<All>>,
}

/// How the connections are, all in all.
#[derive(Debug, Default)]
struct All {
    open: usize,
    out: usize,
    told: usize,
    obstacles: Vec<String>,
}

impl Notices {
    pub(crate) fn new(level: LogLevel) -> Self {
        Self { level, all: Arc::default() }
    }

    /// Follows one connection until it is closed, in a task of its own. `interactive` is for somebody who can be told what
    /// to press.
    pub(crate) fn follow(&self, connection: watch::Receiver<ConnectionState>, interactive: bool) {
        if let Some(patience) = patience(self.level) {
            let follower = Follower::new(self.clone());
            tokio::spawn(follower.run(connection, patience, interactive));
        }
    }

    /// Changes the counts, and lets the progress lines know whether anything can move at all.
    fn update<T>(&self, change: impl FnOnce(&mut All) -> T) -> T {
        let mut all: MutexGuard<'_, All> = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut all);
        if all.told == 0 {
            all.obstacles.clear();
        }
        progress::set_stalled(all.out > 0 && all.out == all.open);
        result
    }

    /// Whether this reason was not told yet.
    fn is_news(&self, obstacle: &StreamError) -> bool {
        let text = obstacle.to_string();
        self.update(|all| {
            let is_news = all.obstacles.len() < MAX_OBSTACLES && !all.obstacles.contains(&text);
            if is_news {
                all.obstacles.push(text);
            }
            is_news
        })
    }
}

/// What it is that does not work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// There is no connection.
    Lost,
    /// There is one, and nobody answers at its end.
    Silent,
}

impl Kind {
    fn beginning(self) -> &'static str {
        match self {
            Self::Lost => "connection lost, reconnecting…",
            Self::Silent => "the node does not answer…",
        }
    }

    fn end(self) -> &'static str {
        match self {
            Self::Lost => "connected again",
            Self::Silent => "the node answers again",
        }
    }
}

/// One connection, and the outage that it has, if there is one.
#[derive(Debug)]
struct Follower {
    notices: Notices,
    outage: Option<(Kind, Instant)>,
    cause: String,
    is_told: bool,
}

impl Follower {
    fn new(notices: Notices) -> Self {
        notices.update(|all| all.open += 1);
        Self { notices, outage: None, cause: String::new(), is_told: false }
    }

    async fn run(mut self, mut connection: watch::Receiver<ConnectionState>, patience: Duration, interactive: bool) {
        loop {
            let state = connection.borrow_and_update().clone();
            match &state {
                ConnectionState::Closed => return,
                ConnectionState::Reconnecting { since, cause, obstacle, .. } => {
                    self.begin(Kind::Lost, *since, cause);
                    if let Some(obstacle) = obstacle {
                        self.meet(obstacle.error(), interactive);
                    }
                }
                ConnectionState::Unanswered { since, .. } => self.begin(Kind::Silent, *since, "still waiting"),
                _ => self.end().iter().for_each(|line| report::aside(line)),
            }
            tokio::select! {
                () = self.outlast(patience) => self.tell(interactive),
                changed = connection.changed() => if changed.is_err() { return },
            }
        }
    }

    /// A connection that came back and was lost again before it carried anything goes on with the same outage.
    fn begin(&mut self, kind: Kind, since: Instant, cause: &str) {
        match self.outage {
            None => self.notices.update(|all| all.out += 1),
            Some((before, _)) if before != kind => drop(self.untell()),
            Some(_) => {}
        }
        self.outage = Some((kind, since));
        cause.clone_into(&mut self.cause);
    }

    /// What is to be said about the end of what was told.
    fn end(&mut self) -> Option<String> {
        let (kind, since) = self.outage.take()?;
        self.notices.update(|all| all.out -= 1);
        self.untell().then(|| format!("{} after {} s", kind.end(), tenths(since.elapsed())))
    }

    /// Whether this was the last connection whose outage was told.
    fn untell(&mut self) -> bool {
        std::mem::take(&mut self.is_told)
            && self.notices.update(|all| {
                all.told -= 1;
                all.told == 0
            })
    }

    /// Returns when it has lasted for `patience` and was not told yet.
    async fn outlast(&self, patience: Duration) {
        match self.outage.filter(|_| !self.is_told) {
            Some((_, since)) => sleep(patience.saturating_sub(since.elapsed())).await,
            None => pending().await,
        }
    }

    fn tell(&mut self, interactive: bool) {
        if let Some(line) = self.beginning(interactive) {
            report::aside(&line);
        }
    }

    /// What is to be said about the beginning, which is told from now on.
    fn beginning(&mut self, interactive: bool) -> Option<String> {
        let (kind, _) = self.outage.filter(|_| !self.is_told)?;
        self.is_told = true;
        let is_first = self.notices.update(|all| {
            all.told += 1;
            all.told == 1
        });
        let advice = match (interactive, terminal::is_raw()) {
            (true, true) => "~. to give up",
            // Before there is a shell nobody listens for escapes.
            (true, false) => "Ctrl-C to give up",
            (false, _) => &self.cause,
        };
        is_first.then(|| format!("{} {advice}", kind.beginning()))
    }

    /// What waits for the user is told at once: it may take as long as the outage is allowed to last.
    fn meet(&mut self, obstacle: &StreamError, interactive: bool) {
        let is_wanted = is_for_the_user(obstacle) || (self.is_told && self.notices.level > LogLevel::Info);
        if is_wanted {
            self.tell(interactive);
            if self.notices.is_news(obstacle) {
                report::obstacle(obstacle);
            }
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.untell();
        let is_out = self.outage.is_some();
        self.notices.update(|all| {
            all.open -= 1;
            all.out -= usize::from(is_out);
        });
    }
}

/// Whether waiting alone does not help.
fn is_for_the_user(obstacle: &StreamError) -> bool {
    match obstacle {
        StreamError::UpgradeDenied(_) => true,
        StreamError::Service(error) => matches!(
            error,
            ServiceError::Expired(_)
                | ServiceError::Credentials(_)
                | ServiceError::CredentialsRefused(_)
                | ServiceError::Configuration(_)
                | ServiceError::Denied(_)
        ),
        _ => false,
    }
}

fn tenths(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn follower(notices: &Notices) -> Follower {
        Follower::new(notices.clone())
    }

    #[test]
    fn long_outages_are_told_whoever_looks_on() {
        assert_eq!(patience(LogLevel::Info), Some(PATIENCE));
        assert_eq!(patience(LogLevel::Stages), Some(Duration::ZERO));
        assert_eq!(patience(LogLevel::Quiet), None);
    }

    #[test]
    fn the_end_of_an_outage_is_told_if_its_beginning_was_and_in_its_words() {
        let end = |kinds: &[(Kind, bool)]| {
            let mut outage = follower(&Notices::new(LogLevel::Info));
            for (kind, is_told) in kinds {
                outage.begin(*kind, Instant::now(), "why");
                let _ = is_told.then(|| outage.beginning(false));
            }
            outage.end().unwrap_or_default()
        };
        assert_eq!(end(&[(Kind::Lost, false)]), "");
        assert_eq!(end(&[(Kind::Lost, true), (Kind::Lost, false)]), "connected again after 0.0 s");
        assert_eq!(end(&[(Kind::Silent, true)]), "the node answers again after 0.0 s");
        assert_eq!(end(&[(Kind::Lost, true), (Kind::Silent, false)]), "", "what came of it was not told");
    }

    #[test]
    fn connections_that_are_lost_together_are_one_outage() {
        let notices = Notices::new(LogLevel::Info);
        let mut streams = [0; 3].map(|_| follower(&notices));
        let lost = streams.each_mut().map(|stream| {
            stream.begin(Kind::Lost, Instant::now(), "connection reset");
            stream.beginning(false)
        });
        assert_eq!(lost, [Some("connection lost, reconnecting… connection reset".to_owned()), None, None]);
        let [first, second, third] = streams;
        drop(first);
        let ends = [second, third].map(|mut stream| stream.end());
        assert_eq!(ends, [None, Some("connected again after 0.0 s".to_owned())]);
    }

    #[test]
    fn a_reason_is_told_once_an_outage_however_often_and_by_whomever_it_is_met() {
        let notices = Notices::new(LogLevel::Info);
        let expired = StreamError::Service(ServiceError::Expired("log in".to_owned()));
        let mut stream = follower(&notices);
        for _ in 0..2 {
            stream.begin(Kind::Lost, Instant::now(), "why");
            assert!(stream.beginning(false).is_some());
            assert!(is_for_the_user(&expired) && notices.is_news(&expired) && !notices.is_news(&expired));
            assert!(stream.end().is_some());
        }
    }
}
