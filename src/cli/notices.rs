//! What a user is told about a connection that is lost and comes back, and about a node that does not answer.

use std::future::pending;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::sleep;

use super::options::LogLevel;
use super::{report, terminal};
use crate::stream::ConnectionState;

/// An outage that is over sooner is not worth a line on somebody's screen.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long an outage may last before it is told; `None` where nobody wants to hear of it.
pub(crate) fn patience(level: LogLevel, interactive: bool) -> Option<Duration> {
    match (level, interactive) {
        (LogLevel::Quiet, _) | (LogLevel::Info, false) => None,
        (LogLevel::Info, true) => Some(PATIENCE),
        (LogLevel::Stages | LogLevel::Debug, _) => Some(Duration::ZERO),
    }
}

/// Tells of each outage that outlasts `patience`, and of its end, until the stream is closed.
///
/// Cancelling it only ends the telling.
pub(crate) async fn follow(mut connection: watch::Receiver<ConnectionState>, patience: Duration, interactive: bool) {
    let mut outage = Outage::default();
    loop {
        let state = connection.borrow_and_update().clone();
        match &state {
            ConnectionState::Closed => return,
            ConnectionState::Reconnecting { since, cause, .. } => {
                outage.begin(Kind::Lost, *since, cause);
            }
            ConnectionState::Unanswered { since, .. } => {
                outage.begin(Kind::Silent, *since, "still waiting");
            }
            _ => outage.end().iter().for_each(|line| report::aside(line)),
        }
        tokio::select! {
            () = outage.outlast(patience) => outage.tell(interactive),
            changed = connection.changed() => if changed.is_err() { return },
        }
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

/// The outage under way, if there is one.
#[derive(Debug, Default)]
struct Outage {
    now: Option<(Kind, Instant)>,
    cause: String,
    is_told: bool,
}

impl Outage {
    /// A connection that came back and was lost again before it carried anything goes on with the same outage.
    fn begin(&mut self, kind: Kind, since: Instant, cause: &str) {
        self.is_told &= self.now.is_some_and(|(before, _)| before == kind);
        self.now = Some((kind, since));
        cause.clone_into(&mut self.cause);
    }

    /// What is to be said about the end of what was told.
    fn end(&mut self) -> Option<String> {
        let (kind, since) = self.now.take()?;
        std::mem::take(&mut self.is_told).then(|| format!("{} after {} s", kind.end(), tenths(since.elapsed())))
    }

    /// Returns when it has lasted for `patience` and was not told yet.
    async fn outlast(&self, patience: Duration) {
        match self.now.filter(|_| !self.is_told) {
            Some((_, since)) => sleep(patience.saturating_sub(since.elapsed())).await,
            None => pending().await,
        }
    }

    fn tell(&mut self, interactive: bool) {
        let Some((kind, _)) = self.now else { return };
        self.is_told = true;
        let advice = match (interactive, terminal::is_raw()) {
            (true, true) => "~. to give up",
            // Before there is a shell nobody listens for escapes.
            (true, false) => "Ctrl-C to give up",
            (false, _) => &self.cause,
        };
        report::aside(&format!("{} {advice}", kind.beginning()));
    }
}

fn tenths(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_hear_of_long_outages_and_others_only_when_they_ask() {
        assert_eq!(patience(LogLevel::Info, true), Some(PATIENCE));
        assert_eq!(patience(LogLevel::Info, false), None);
        assert_eq!(patience(LogLevel::Stages, false), Some(Duration::ZERO));
        assert_eq!(patience(LogLevel::Quiet, true), None);
    }

    #[test]
    fn the_end_of_an_outage_is_told_if_its_beginning_was_and_in_its_words() {
        let end = |kinds: &[(Kind, bool)]| {
            let mut outage = Outage::default();
            for (kind, is_told) in kinds {
                outage.begin(*kind, Instant::now(), "why");
                outage.is_told |= is_told;
            }
            outage.end().unwrap_or_default()
        };
        assert_eq!(end(&[(Kind::Lost, false)]), "");
        assert_eq!(end(&[(Kind::Lost, true), (Kind::Lost, false)]), "connected again after 0.0 s");
        assert_eq!(end(&[(Kind::Silent, true)]), "the node answers again after 0.0 s");
        assert_eq!(end(&[(Kind::Lost, true), (Kind::Silent, false)]), "", "what came of it was not told");
    }
}
