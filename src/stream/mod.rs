//! The data channel on a WebSocket, offered as `AsyncRead + AsyncWrite`.
//!
//! [`open`] starts an SSM session and gives a [`SsmStream`] to a TCP port of the node. One task per stream drives the
//! protocol engine; the stream's halves put bytes into the engine and take them out of it directly, so there is no queue
//! between them and back-pressure is the engine's own: `write` waits while the window is full, and the WebSocket is not
//! read while the inbox is.
//!
//! ```text
//!  poll_write ──► ┌─────────────┐ poll_transmit ──► ┌───────────┐
//!                 │ DataChannel │                   │ WebSocket │ ◄──► service ◄──► node
//!  poll_read  ◄── └─────────────┘ ◄── handle_frame  └───────────┘
//!                        ▲ the driver task ▲
//! ```
//!
//! A lost connection is resumed underneath; what cannot be resumed ends in an error, never in an end of file. The end of
//! file means that the far end closed its connection and everything it sent has been read.
//!
//! An SSM session lives in the service, so something must end it: shutting the stream down does, and so does dropping
//! the stream, or the future of `open`, in the background. Wait for [`StreamHandle::closed`] before the process exits.

mod clock;
mod dial;
mod driver;
mod error;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod link;
mod liveness;
mod payload;
mod proxy;
mod quote;
mod service;
mod shared;
mod silence;
mod socket;
mod stop;
mod tls;
mod url;

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tracing::Instrument as _;

pub(crate) use self::dial::Transport;
pub use self::dial::{AddressFamily, DialError, Network};
pub use self::error::StreamError;
pub use self::proxy::{ProxyConfig, ProxyError};
pub(crate) use self::quote::{REFUSAL, SENTENCE, quote};
pub use self::service::{
    Denied, Grant, SSH_PORT, ServiceError, SessionId, SsmService, StartRequest, TargetId, TargetIdError, UpgradeHeaders,
};
pub(crate) use self::service::{is_presigned, report_stage, report_wait};
use self::shared::{Goal, Shared};
use self::socket::Connect;
pub use self::url::UrlError;
pub(crate) use self::url::is_loopback;
use crate::datachannel::{Config, LONGEST, SHORTEST, Stats};

/// Options of a stream. A time above a year counts as one: `Duration::MAX` is no limit in practice. Where zero, or a time too
/// short for any answer, would end a sound session, 1 s holds instead.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct StreamOptions {
    /// Options of the data channel.
    pub channel: Config,
    /// How long to keep trying to resume a lost connection. Default 10 minutes. While it lasts, reads and writes wait. Zero
    /// resumes nothing: a connection that is lost ends the stream, the service's hourly cut too.
    pub resume_timeout: Duration,
    /// How long a shutdown waits in silence for the node to confirm what was written. Default 2 s, at least 1 s. As long as the node
    /// answers anything, it goes on; at the end of it the session is terminated through the API.
    pub drain_timeout: Duration,
    /// How long the node's port may leave the first bytes that were written unacknowledged without sending any itself, on
    /// a connection that is read. Default 8 s, at least 1 s. At the end of it nothing listens there, as far as can be seen: the session
    /// is terminated with [`StreamError::NothingListens`]. Before anything is written there is no limit.
    pub port_timeout: Duration,
    /// How long the node may be silent, on a connection that is read: neither acknowledging what is written nor sending
    /// anything. Default 10 minutes, at least 1 s. At the end of it the session is terminated with
    /// [`StreamError::NodeSilent`]. There is no limit with agents before 3.2.1041.0, whose silence may mean that an
    /// acknowledgement was lost.
    ///
    /// Where nothing is written for half of this time, 5 s at least, the node is sent a terminal size, which its agent
    /// acknowledges and ignores, and has the other half to do so. As far as is known the service counts that as little as a
    /// ping: only data prolong a session that the account's idle limit ends. A time above a year never asks.
    pub node_timeout: Duration,
    /// How the WebSocket leaves this machine. Default: directly, believing the system's root certificates. The API has
    /// its own: [`AwsServiceBuilder::network`](crate::aws::AwsServiceBuilder::network).
    pub network: Network,
    /// A host, and a port where it is not 443, to connect to in place of the one that the service names: for a VPC
    /// endpoint that has no private DNS name. Default: none. The WebSocket leads to it over TLS, its certificate must be
    /// for this name, the `Host` header names it, and the upgrade is signed for it. It receives the session's token.
    pub stream_host: Option<String>,
}

impl Default for StreamOptions {
    fn default() -> Self {
        Self {
            channel: Config::default(),
            resume_timeout: Duration::from_mins(10),
            drain_timeout: Duration::from_secs(2),
            port_timeout: Duration::from_secs(8),
            node_timeout: Duration::from_mins(10),
            network: Network::default(),
            stream_host: None,
        }
    }
}

impl StreamOptions {
    fn within_limits(mut self) -> Self {
        for time in [&mut self.resume_timeout, &mut self.drain_timeout, &mut self.port_timeout, &mut self.node_timeout]
        {
            *time = (*time).min(LONGEST);
        }
        for time in [&mut self.drain_timeout, &mut self.port_timeout, &mut self.node_timeout] {
            *time = (*time).max(SHORTEST);
        }
        self
    }
}

/// How a stream is connected at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectionState {
    /// The session is being started, or the handshake is under way.
    Opening,
    /// Bytes can flow.
    Connected,
    /// The connection was lost; it is being resumed. Reads and writes wait.
    Reconnecting {
        /// When it was lost: of one that says nothing more, when it was heard last. A connection that came back and was lost
        /// before it carried anything was not back.
        since: Instant,
        /// When it is given up, on the clock that does not run while the machine sleeps.
        until: Instant,
        /// Why it was lost.
        cause: String,
        /// What the last try to resume it met; nothing before the first has failed. Some of it only the user can remove, such as
        /// credentials that have expired; it is tried on all the same.
        obstacle: Option<Obstacle>,
    },
    /// The service is connected, and the node has answered nothing for 10 s, although something was written. Bytes flow
    /// again when it does.
    Unanswered {
        /// When it was heard last, or the first unanswered byte was written.
        since: Instant,
        /// When it is given up.
        until: Instant,
    },
    /// The session is over; [`StreamHandle::closed`] says how it ended, [`StreamError::Lost`] where it was given up.
    Closed,
}

/// Why a lost connection could not be resumed yet. Two are the same where they say the same.
#[derive(Debug, Clone)]
pub struct Obstacle(Arc<StreamError>);

impl Obstacle {
    /// What the try met.
    pub fn error(&self) -> &StreamError {
        &self.0
    }
}

impl PartialEq for Obstacle {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_string() == other.0.to_string()
    }
}

impl Eq for Obstacle {}

/// Starts an SSM session and opens a byte stream to a port of the node.
///
/// The work begins at once, in a task of its own: this must be called within a Tokio runtime. Awaiting the result gives
/// the stream. Dropping it gives up: a session that was started is terminated in the background, which
/// [`StreamHandle::closed`] of [`Opening::handle`] waits for.
pub fn open(service: Arc<dyn SsmService>, request: StartRequest, options: StreamOptions) -> Opening {
    let network = Arc::new(options.network.clone());
    open_with(service, network, request, options)
}

fn open_with(
    service: Arc<dyn SsmService>,
    connect: Arc<dyn Connect>,
    request: StartRequest,
    options: StreamOptions,
) -> Opening {
    let options = options.within_limits();
    let shared = Arc::new(Shared::new(options.channel.clone()));
    let setup = driver::Setup { service, connect, request, options, shared: Arc::clone(&shared) };
    // What it logs is about whoever opened it.
    tokio::spawn(driver::run(setup).in_current_span());
    Opening { stream: Some(SsmStream { shared: Arc::clone(&shared) }), shared }
}

/// A stream that is being opened; a future of it.
#[must_use = "dropping it gives the session up"]
pub struct Opening {
    /// Taken when the future completes; until then, its drop gives the session up.
    stream: Option<SsmStream>,
    shared: Arc<Shared>,
}

impl Opening {
    /// A handle that outlives the opening and the stream.
    pub fn handle(&self) -> StreamHandle {
        StreamHandle { shared: Arc::clone(&self.shared) }
    }
}

impl Future for Opening {
    type Output = Result<SsmStream, StreamError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let opened = ready!(self.shared.poll_open(cx));
        let stream = self.stream.take().expect("a future is not polled after it has completed");
        Poll::Ready(opened.map(|()| stream))
    }
}

/// A byte stream to a TCP port of a managed node.
///
/// Reading gives [`io::Error`]s that carry a [`StreamError`] ([`StreamError::from_io`]), and only after all bytes that
/// had arrived. Shutting it down waits until the node has confirmed what was written, then ends the session: there is no
/// half-close, so shut down when the answer has been read. Dropping it does the same in the background; the process
/// should not exit before [`StreamHandle::closed`].
///
/// Cancelling a read, a write or a shutdown loses nothing.
pub struct SsmStream {
    shared: Arc<Shared>,
}

impl SsmStream {
    /// Starts an SSM session and opens a byte stream to a port of the node; the same as awaiting [`open`].
    ///
    /// Cancelling it gives the session up as dropping an [`Opening`] does.
    pub async fn open(
        service: Arc<dyn SsmService>,
        request: StartRequest,
        options: StreamOptions,
    ) -> Result<Self, StreamError> {
        open(service, request, options).await
    }

    /// A handle that outlives the stream, for whoever must wait for its end.
    pub fn handle(&self) -> StreamHandle {
        StreamHandle { shared: Arc::clone(&self.shared) }
    }
}

impl AsyncRead for SsmStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.shared.poll_read(cx, buf)
    }
}

impl AsyncWrite for SsmStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.shared.poll_write(cx, data)
    }

    /// What was written is on its way already: there is nothing to wait for.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shared.raise(Goal::Finish);
        self.shared.poll_over(cx)
    }
}

impl Drop for SsmStream {
    fn drop(&mut self) {
        self.shared.raise(Goal::Abandon);
    }
}

impl fmt::Debug for SsmStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SsmStream").field("session", &self.shared.session.get()).finish_non_exhaustive()
    }
}

/// Tells about a stream and outlives it. Dropping it has no effect.
#[derive(Clone)]
pub struct StreamHandle {
    shared: Arc<Shared>,
}

impl StreamHandle {
    /// The SSM session; `None` before it was started.
    pub fn session_id(&self) -> Option<&SessionId> {
        self.shared.session.get()
    }

    /// The agent's version as it reported it; `None` before the handshake.
    pub fn agent_version(&self) -> Option<&str> {
        self.shared.agent_version.get().map(String::as_str)
    }

    /// What the data channel has carried so far, and how.
    pub fn stats(&self) -> Stats {
        self.shared.lock().channel.stats()
    }

    /// How the stream is connected, to be watched for changes.
    pub fn connection(&self) -> watch::Receiver<ConnectionState> {
        self.shared.connection.subscribe()
    }

    /// Waits until the stream is over: the far end has closed, or the node or the service has confirmed that the session is
    /// to end. Says how it ended. The service may list the session a moment longer, see [`Self::gone`].
    ///
    /// It ends by itself only when the far end closes; otherwise the stream must be shut down, dropped or terminated.
    /// Cancelling it has no effect; it can be called any number of times.
    pub async fn closed(&self) -> Result<(), StreamError> {
        let mut over = self.shared.over.subscribe();
        let outcome = over.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone());
        outcome.unwrap_or(Err(StreamError::RuntimeGone))
    }

    /// Waits until the service has ended the session, too. After the stream's end that takes the node up to 2 s; a service
    /// that has not said it within 5 s is not waited for.
    ///
    /// Cancelling it has no effect; it can be called any number of times.
    pub async fn gone(&self) {
        // Fails when the sender is gone, which `self` holds.
        let _ = self.shared.gone.subscribe().wait_for(|gone| *gone).await;
    }

    /// Ends the session without waiting for anything that is still to be sent. [`Self::closed`] tells when it is done.
    pub fn terminate(&self) {
        self.shared.raise(Goal::Terminate);
    }
}

impl fmt::Debug for StreamHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamHandle")
            .field("session", &self.session_id())
            .field("connection", &*self.shared.connection.borrow())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
