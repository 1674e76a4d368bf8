//! The WebSocket: connecting it, keeping it alive, and the traits that stand for it in tests.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{SinkExt, StreamExt};
use http::header::DATE;
use http::{Request, StatusCode, Uri};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Sleep, sleep_until, timeout};
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::clock::now;
use super::dial::{DialError, Network};
use super::liveness::{KeepAlive, Liveness, Pulse};
use super::quote::{REFUSAL, quote};
use super::service::UpgradeHeaders;
use crate::datachannel::Transmit;

/// The longest wait for one connection: name resolution, TCP, proxy, TLS and upgrade together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// The largest message taken from the service. The agent sends 1 KiB of data in one; nothing that it or the service writes
/// is longer than 142,000 bytes (agent `session/config/config.go: ControlChannelWriteBufferSizeLimit`).
const MAX_MESSAGE: usize = 256 << 10;

/// Frames are gathered up to this size before they are written; what is gathered is flushed when nothing is left to send.
const WRITE_BUFFER: usize = 128 << 10;

/// Most bytes that wait for a service that does not read: what was gathered, the largest message after it, and answers to
/// pings, of which a service may send any number.
const MAX_UNSENT: usize = 1 << 20;

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
    /// Pings when it is time, and fails when the peer is gone. To be called whenever nothing is left to receive, so that
    /// what had arrived while this process was stopped is heard first, or when nothing is received at present.
    /// A peer that owes an answer is asked sooner.
    fn keep_alive(&mut self, cx: &mut Context<'_>, is_reading: bool, is_owed: bool) -> io::Result<()>;
    /// When anything was heard last, or could not have been.
    fn last_heard(&self) -> Instant;
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
    /// The upgrade was answered 401 or 403, with this text, and at this time of the service's.
    Denied(String, Option<SystemTime>),
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
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                    let time =
                        answer.headers().get(DATE).and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
                    Self::Denied(excerpt(answer.into_body()), time)
                }
                other => Self::Refused(other.as_u16()),
            },
            other => lost(other).into(),
        }
    }
}

/// The beginning of an answer's body, fit to be repeated.
fn excerpt(body: Option<Vec<u8>>) -> String {
    quote(&String::from_utf8_lossy(&body.unwrap_or_default()), REFUSAL, &[])
}

impl Connect for Network {
    fn connect<'a>(
        &'a self,
        url: &'a Uri,
        headers: UpgradeHeaders,
    ) -> BoxFuture<'a, Result<Box<dyn Socket>, ConnectError>> {
        Box::pin(async move {
            let opened = timeout(CONNECT_TIMEOUT, upgrade(self, url, headers)).await;
            opened.unwrap_or_else(|_| Err(self.late(url, CONNECT_TIMEOUT).into()))
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

/// What one WebSocket may cost.
pub(super) fn limits() -> WebSocketConfig {
    WebSocketConfig::default()
        .write_buffer_size(WRITE_BUFFER)
        .max_write_buffer_size(MAX_UNSENT)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE))
}

/// A WebSocket over any transport.
pub(super) struct WebSocket<S> {
    inner: WebSocketStream<S>,
    liveness: Liveness,
    timer: Pin<Box<Sleep>>,
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
        let (inner, _answer) = client_async_with_config(request, transport, Some(limits())).await?;
        Ok(Self::new(inner, KeepAlive::USUAL))
    }

    pub(super) fn new(inner: WebSocketStream<S>, keep_alive: KeepAlive) -> Self {
        let liveness = Liveness::new(keep_alive, now(), SystemTime::now());
        let timer = Box::pin(sleep_until(liveness.deadline().into()));
        Self { inner, liveness, timer, ping: Ping::Idle }
    }

    /// Lets the clocks be looked at when it is time.
    fn look(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        // What was heard or sent meanwhile may have moved the deadline towards the timer; that is never far away, because the
        // clocks are compared every few seconds.
        while self.timer.as_mut().poll(cx).is_ready() {
            match self.liveness.check(now(), SystemTime::now()) {
                Pulse::Nothing => {}
                Pulse::Ping => self.ping = Ping::Due,
                Pulse::Gone => {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "nothing was heard from the service"));
                }
            }
            self.timer.as_mut().reset(self.liveness.deadline().into());
        }
        Ok(())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Socket for WebSocket<S> {
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        loop {
            let message = ready!(self.inner.poll_next_unpin(cx));
            let message = message.unwrap_or(Err(WsError::ConnectionClosed)).map_err(lost)?;
            self.liveness.heard(now(), message.is_binary() || message.is_text());
            match message {
                Message::Binary(frame) => return Poll::Ready(Ok(frame)),
                Message::Text(frame) => return Poll::Ready(Ok(frame.into())),
                Message::Close(reason) => return Poll::Ready(Err(closed(reason))),
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    }

    fn last_heard(&self) -> Instant {
        self.liveness.last_heard()
    }

    fn keep_alive(&mut self, cx: &mut Context<'_>, is_reading: bool, is_owed: bool) -> io::Result<()> {
        self.liveness.owes(is_owed, now());
        if !is_reading {
            self.liveness.not_reading(now());
        }
        self.look(cx)?;
        if self.ping == Ping::Due && self.poll_ready(cx)?.is_ready() {
            self.inner.start_send_unpin(Message::Ping(Bytes::from_static(b"keepalive"))).map_err(lost)?;
            self.ping = Ping::Unflushed;
        }
        if self.ping == Ping::Unflushed && self.poll_flush(cx)?.is_ready() {
            self.ping = Ping::Idle;
        }
        Ok(())
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

/// The service closed the WebSocket with this code.
#[derive(Debug, thiserror::Error)]
#[error("the service closed the WebSocket: {} {reason}", u16::from(*.code))]
struct Closed {
    code: CloseCode,
    reason: String,
}

fn closed(frame: Option<CloseFrame>) -> io::Error {
    let Some(frame) = frame else {
        return io::Error::new(io::ErrorKind::ConnectionAborted, "the service closed the WebSocket");
    };
    let closed = Closed { code: frame.code, reason: frame.reason.to_string() };
    io::Error::new(io::ErrorKind::ConnectionAborted, closed)
}

/// Whether the service closed the WebSocket because of a message: it was too big, or against its policy.
pub(super) fn is_size_refused(error: &io::Error) -> bool {
    let closed = error.get_ref().and_then(|cause| cause.downcast_ref());
    matches!(closed, Some(Closed { code: CloseCode::Size | CloseCode::Policy, .. }))
}

fn lost(error: WsError) -> io::Error {
    match error {
        WsError::Io(error) => error,
        WsError::ConnectionClosed | WsError::AlreadyClosed => io::ErrorKind::UnexpectedEof.into(),
        // Not the error itself: it may carry a message, and with it the token.
        other => io::Error::other(other.to_string()),
    }
}
