//! The WebSocket: connecting it, keeping it alive, and the traits that stand for it in tests.

use std::io;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{SinkExt, StreamExt};
use http::{Request, StatusCode, Uri};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Interval, MissedTickBehavior, interval_at, timeout};
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::dial::{DialError, Network};
use super::service::UpgradeHeaders;
use crate::datachannel::Transmit;

/// The longest wait for one connection: name resolution, TCP, proxy, TLS and upgrade together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// The largest message taken from the service. The agent sends 1 KiB; this only bounds what a broken peer may cost.
const MAX_MESSAGE: usize = 64 << 20;

/// Frames are gathered up to this size before they are written; what is gathered is flushed when nothing is left to send.
const WRITE_BUFFER: usize = 128 << 10;

/// One open WebSocket: a frame is one message of the data channel.
///
/// All methods are called from the one task that drives the stream. Any error means that the connection is gone.
pub(super) trait Socket: Send {
    /// The next frame.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>>;
    /// Whether `send` may be called.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// Takes one frame; it leaves with the next flush at the latest.
    fn send(&mut self, frame: Transmit) -> io::Result<()>;
    /// Hands everything taken to the operating system.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// Says goodbye as far as that is possible without waiting.
    fn close(&mut self);
}

/// Opens sockets.
pub(super) trait Connect: Send + Sync + 'static {
    /// Opens a WebSocket to `url`. Cancelling it closes the connection.
    fn connect<'a>(
        &'a self,
        url: &'a Uri,
        headers: UpgradeHeaders,
    ) -> BoxFuture<'a, Result<Box<dyn Socket>, ConnectError>>;

    /// Does in advance what a connection over TLS will need.
    fn prepare(&self) {}
}

/// Why a WebSocket could not be opened.
#[derive(Debug)]
pub(super) enum ConnectError {
    /// The upgrade was answered 401 or 403, with this text.
    Denied(String),
    /// The upgrade was answered with another status.
    Refused(u16),
    /// There was no answer.
    Dial(DialError),
}

impl From<DialError> for ConnectError {
    fn from(error: DialError) -> Self {
        Self::Dial(error)
    }
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        Self::Dial(error.into())
    }
}

impl From<WsError> for ConnectError {
    fn from(error: WsError) -> Self {
        match error {
            WsError::Http(answer) => match answer.status() {
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Self::Denied(excerpt(answer.into_body())),
                other => Self::Refused(other.as_u16()),
            },
            other => lost(other).into(),
        }
    }
}

/// The beginning of an answer's body, fit for a terminal.
fn excerpt(body: Option<Vec<u8>>) -> String {
    let body = body.unwrap_or_default();
    let text = String::from_utf8_lossy(&body);
    text.chars().take(200).map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().trim().to_owned()
}

impl Connect for Network {
    fn connect<'a>(
        &'a self,
        url: &'a Uri,
        headers: UpgradeHeaders,
    ) -> BoxFuture<'a, Result<Box<dyn Socket>, ConnectError>> {
        Box::pin(async move {
            let opened = timeout(CONNECT_TIMEOUT, upgrade(self, url, headers)).await;
            opened.unwrap_or(Err(DialError::TimedOut(CONNECT_TIMEOUT).into()))
        })
    }

    fn prepare(&self) {
        Network::prepare(self);
    }
}

async fn upgrade(network: &Network, url: &Uri, headers: UpgradeHeaders) -> Result<Box<dyn Socket>, ConnectError> {
    let request = upgrade_request(url, headers)?;
    Ok(Box::new(WebSocket::upgrade(request, network.dial(url).await?).await?))
}

/// The request line carries the URL as given: its query may hold base64 that any re-encoding would change.
fn upgrade_request(url: &Uri, headers: UpgradeHeaders) -> io::Result<Request<()>> {
    let mut request = Request::get(url)
        .header("Host", url.authority().map_or("", |authority| authority.as_str()))
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", generate_key())
        .body(())
        .map_err(io::Error::other)?;
    request.headers_mut().extend(headers);
    Ok(request)
}

/// How a connection is kept, and known to be gone.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeepAlive {
    pub(super) interval: Duration,
    pub(super) dead_after: Duration,
}

impl KeepAlive {
    /// Network address translators and load balancers forget a connection that is silent for a minute. When two pings
    /// and their answers are missing, nobody is there any more.
    pub(super) const USUAL: Self = Self { interval: Duration::from_secs(30), dead_after: Duration::from_secs(75) };
}

/// A WebSocket over any transport.
pub(super) struct WebSocket<S> {
    inner: WebSocketStream<S>,
    dead_after: Duration,
    beat: Interval,
    heard: Instant,
    ping: Ping,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ping {
    Idle,
    Due,
    Unflushed,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> WebSocket<S> {
    async fn upgrade(request: Request<()>, transport: S) -> Result<Self, WsError> {
        let config = WebSocketConfig::default()
            .write_buffer_size(WRITE_BUFFER)
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE));
        let (inner, _answer) = client_async_with_config(request, transport, Some(config)).await?;
        Ok(Self::new(inner, KeepAlive::USUAL))
    }

    pub(super) fn new(inner: WebSocketStream<S>, keep_alive: KeepAlive) -> Self {
        let KeepAlive { interval, dead_after } = keep_alive;
        let mut beat = interval_at(tokio::time::Instant::now() + interval, interval);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { inner, dead_after, beat, heard: Instant::now(), ping: Ping::Idle }
    }

    /// Sends the pings that are due, and gives up on a peer that has been silent too long.
    fn keep_alive(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while self.beat.poll_tick(cx).is_ready() {
            if self.heard.elapsed() > self.dead_after {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "nothing was heard from the service"));
            }
            self.ping = Ping::Due;
        }
        if self.ping == Ping::Due && self.poll_ready(cx)?.is_ready() {
            self.inner.start_send_unpin(Message::Ping(Bytes::from_static(b"keepalive"))).map_err(lost)?;
            self.ping = Ping::Unflushed;
        }
        if self.ping == Ping::Unflushed && self.poll_flush(cx)?.is_ready() {
            self.ping = Ping::Idle;
        }
        Ok(())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Socket for WebSocket<S> {
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        loop {
            let Poll::Ready(message) = self.inner.poll_next_unpin(cx) else {
                // Only now: a process that was stopped for a while has its peer's frames waiting.
                self.keep_alive(cx)?;
                return Poll::Pending;
            };
            let message = message.unwrap_or(Err(WsError::ConnectionClosed)).map_err(lost)?;
            self.heard = Instant::now();
            match message {
                Message::Binary(frame) => return Poll::Ready(Ok(frame)),
                Message::Text(frame) => return Poll::Ready(Ok(frame.into())),
                Message::Close(reason) => {
                    let reason = reason.map_or_else(String::new, |r| format!(": {} {}", u16::from(r.code), r.reason));
                    let text = format!("the service closed the WebSocket{reason}");
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, text)));
                }
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.poll_ready_unpin(cx).map_err(lost)
    }

    fn send(&mut self, frame: Transmit) -> io::Result<()> {
        let message = match frame {
            Transmit::Text(text) => Message::text(text),
            Transmit::Binary(bytes) => Message::Binary(bytes),
        };
        self.inner.start_send_unpin(message).map_err(lost)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.poll_flush_unpin(cx).map_err(lost)
    }

    fn close(&mut self) {
        let _ = self.inner.poll_close_unpin(&mut Context::from_waker(Waker::noop()));
    }
}

fn lost(error: WsError) -> io::Error {
    match error {
        WsError::Io(error) => error,
        WsError::ConnectionClosed | WsError::AlreadyClosed => io::ErrorKind::UnexpectedEof.into(),
        // Not the error itself: it may carry a message, and with it the token.
        other => io::Error::other(other.to_string()),
    }
}
