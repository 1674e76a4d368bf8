//! The ways to the service: how a stream gets a socket, the first and every next one, and how it ends the session
//! without one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Uri;
use tokio::time::{sleep, timeout, timeout_at};

use super::clock::now;
use super::service::{
    Grant, ServiceError, SessionId, SsmService, StartRequest, is_presigned, report_stage, report_wait,
};
use super::shared::{Goal, Shared, random};
use super::socket::{Connect, ConnectError, Socket};
use super::{ConnectionState, Obstacle, StreamError, StreamOptions, UrlError, url};

/// How often a connection that never was open is tried again, as the official client does
/// (`sessionhandler.go: OpenDataChannel`).
const CONNECT_RETRIES: u32 = 5;

/// The agent waits 15 s for its client, so a stream that is not open yet is not worth waiting for as long as a shell is.
const OPENING_LIMIT: Duration = Duration::from_secs(30);

/// The longest wait for the API to terminate the session.
const TERMINATE_TIMEOUT: Duration = Duration::from_secs(5);

/// What is needed to reach the service about one session.
pub(super) struct Link {
    pub(super) service: Arc<dyn SsmService>,
    pub(super) connect: Arc<dyn Connect>,
    pub(super) request: StartRequest,
    pub(super) options: StreamOptions,
    pub(super) shared: Arc<Shared>,
    pub(super) session: SessionId,
}

impl Link {
    /// Until when the node's port must have shown that it takes what is written.
    pub(super) fn port_deadline(&self, since: Instant) -> Instant {
        since + self.options.port_timeout
    }

    pub(super) fn nothing_listens(&self) -> StreamError {
        let StartRequest { target, port, .. } = &self.request;
        StreamError::NothingListens { target: target.clone(), port: port.get(), waited: self.options.port_timeout }
    }

    /// The session's first socket, for the grant that started it.
    pub(super) async fn first_socket(&self, grant: &Grant) -> Result<(Uri, Box<dyn Socket>), StreamError> {
        let started = now();
        let url = self.address(grant)?;
        report_wait("the WebSocket of the SSM session");
        let socket = tokio::select! {
            socket = self.patient_socket(&url) => socket?,
            () = self.is_given_up(false) => return Err(StreamError::Terminated),
        };
        report_stage("WebSocket", started);
        report_wait("the SSM agent on the node");
        Ok((url, socket))
    }

    /// Where the WebSocket leads.
    fn address(&self, grant: &Grant) -> Result<Uri, UrlError> {
        match &self.options.stream_host {
            Some(host) => url::redirected(&grant.stream_url, host),
            None => url::check(&grant.stream_url, self.service.configured_host()),
        }
    }

    /// What fails in passing is tried again.
    async fn patient_socket(&self, url: &Uri) -> Result<Box<dyn Socket>, StreamError> {
        let started = now();
        let mut backoff = Backoff::new();
        for _ in 0..CONNECT_RETRIES {
            match self.socket(url).await {
                Err(error) if error.is_transient() && (now() - started) < OPENING_LIMIT => sleep(backoff.next()).await,
                result => return result,
            }
        }
        self.socket(url).await
    }

    /// One try at a socket; the upgrade is signed anew.
    async fn socket(&self, url: &Uri) -> Result<Box<dyn Socket>, StreamError> {
        let host = || url.host().unwrap_or_default().to_owned();
        let opened = match self.signed(url).await? {
            // Signed with the time of a clock that is wrong, which the answer tells.
            Err(ConnectError::Denied(_, Some(time))) if self.service.learn_time(time) => self.signed(url).await?,
            opened => opened,
        };
        opened.map_err(|error| match error {
            ConnectError::Denied(message, _) => StreamError::UpgradeDenied(self.service.upgrade_denied(message)),
            ConnectError::Refused(status) => StreamError::UpgradeRefused { host: host(), status },
            ConnectError::Dial(source) => StreamError::Connect { host: host(), source: Arc::new(source) },
        })
    }

    async fn signed(&self, url: &Uri) -> Result<Result<Box<dyn Socket>, ConnectError>, StreamError> {
        // `Uri` shows exactly what it was parsed from.
        let headers = self.service.sign_upgrade(&url.to_string()).await?;
        Ok(self.connect.connect(url, headers).await)
    }

    /// A new socket for the session, and the token for it. The URL stays the first one, as with the official client,
    /// unless its own signature has an end.
    async fn next_socket(&self, url: &Uri) -> Result<(Box<dyn Socket>, String), StreamError> {
        let grant = self.service.resume(&self.session).await?;
        let socket = if is_presigned(&url.to_string()) {
            self.socket(&self.address(&grant)?).await?
        } else {
            self.socket(url).await?
        };
        Ok((socket, grant.token))
    }

    /// When a connection that was lost at `since` is given up.
    pub(super) fn gives_up(&self, since: Instant, is_open: bool) -> Instant {
        let limit = self.options.resume_timeout;
        since + if is_open { limit } else { limit.min(OPENING_LIMIT) }
    }

    /// Tries until the connection is back, the time is over, or the session is.
    pub(super) async fn resume(
        &self,
        url: &Uri,
        cut: StreamError,
        outage: &mut Outage,
        is_open: bool,
    ) -> Result<(Box<dyn Socket>, String), StreamError> {
        let until = self.gives_up(outage.noticed, is_open);
        let mut last = cut;
        while now() < until {
            let attempt = async {
                sleep(outage.next_delay()).await;
                self.next_socket(url).await
            };
            match timeout_at(until.into(), attempt).await {
                Ok(Ok(next)) => return Ok(next),
                Ok(Err(error)) if !error.may_pass() => return Err(error),
                Ok(Err(error)) => last = error,
                Err(_) => break,
            }
            tracing::debug!(session = %self.session, error = %last, "cannot resume yet");
            self.tell_obstacle(&last);
        }
        Err(StreamError::Lost { waited: now() - outage.noticed, source: Box::new(last) })
    }

    /// Lets whoever watches the connection know what stands in its way.
    fn tell_obstacle(&self, met: &StreamError) {
        self.shared.connection.send_if_modified(|state| {
            let ConnectionState::Reconnecting { obstacle, .. } = state else { return false };
            let met = Some(Obstacle(Arc::new(met.clone())));
            let is_news = *obstacle != met;
            if is_news {
                *obstacle = met;
            }
            is_news
        });
    }

    /// Returns when it is no use to get a socket any more. While there may be something to deliver, a shutdown and a
    /// dropped stream leave a little time for it.
    pub(super) async fn is_given_up(&self, is_open: bool) {
        let mut goal = self.shared.goal.subscribe();
        let _ = goal.wait_for(|goal| *goal >= Goal::Finish).await;
        if is_open {
            let _ = timeout(self.options.drain_timeout, goal.wait_for(|goal| *goal == Goal::Terminate)).await;
        }
    }

    /// Ends the session through the API; `outcome` is how the stream ended.
    pub(super) async fn terminate(&self, outcome: Result<(), StreamError>) -> Result<(), StreamError> {
        let terminated = timeout(TERMINATE_TIMEOUT, self.service.terminate(&self.session)).await;
        let Err(source) = terminated.unwrap_or_else(|_| Err(timed_out("TerminateSession"))) else { return outcome };
        let session = &self.session;
        tracing::warn!(
            "SSM session {session} may stay open until its idle time-out: it could not be terminated: {source}"
        );
        outcome.and(Err(StreamError::NotTerminated { session: self.session.clone(), source }))
    }
}

fn timed_out(operation: &'static str) -> ServiceError {
    ServiceError::Unreachable { operation, message: "no answer in time".to_owned() }
}

/// The time without a connection that carries anything. A service that takes a connection and cuts it at once prolongs
/// it: neither the limit nor the delays begin anew.
pub(super) struct Outage {
    /// When the service was heard last.
    pub(super) since: Instant,
    /// From then on it was tried.
    pub(super) noticed: Instant,
    backoff: Option<Backoff>,
}

impl Outage {
    pub(super) fn new(since: Instant, noticed: Instant) -> Self {
        Self { since, noticed, backoff: None }
    }

    /// How long to wait before the next try: not at all before the first.
    fn next_delay(&mut self) -> Duration {
        let Some(backoff) = &mut self.backoff else {
            self.backoff = Some(Backoff::new());
            return Duration::ZERO;
        };
        backoff.next()
    }
}

/// Growing delays, 0.1 to 5 s, each spread over a half of itself so that many clients do not return as one.
struct Backoff(Duration);

impl Backoff {
    const CAP: Duration = Duration::from_secs(5);

    fn new() -> Self {
        Self(Duration::from_millis(100))
    }

    fn next(&mut self) -> Duration {
        let base = self.0;
        self.0 = (base * 2).min(Self::CAP);
        let jitter = u32::try_from(random() % 1000).unwrap_or_default();
        base / 2 + base / 2 * jitter / 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_cap_and_are_spread() {
        let mut backoff = Backoff::new();
        let mut base = Duration::from_millis(100);
        for _ in 0..10 {
            let delay = backoff.next();
            assert!(base / 2 <= delay && delay <= base, "{delay:?} of {base:?}");
            base = (base * 2).min(Backoff::CAP);
        }
        assert_eq!(base, Backoff::CAP);
    }
}
